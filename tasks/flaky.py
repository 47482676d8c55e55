"""A task that fails at first, to show and to test retries."""

from __future__ import annotations

from typing import Any, TypedDict

from tasks.app import app

MAX_RETRIES = 5


class TemporaryFailure(Exception):
    """Something that may work the next time, such as a service that is busy."""


class Attempts(TypedDict):
    """How often a task ran until it succeeded."""

    attempts: int


@app.task(
    name="tasks.unreliable",
    bind=True,
    autoretry_for=(TemporaryFailure,),
    # Exponential: up to 1, 2, 4 ... seconds. Jitter: so that many tasks that failed together, because
    # the same service was away, do not all come back at the same moment.
    retry_backoff=1,
    retry_backoff_max=60,
    retry_jitter=True,
    max_retries=MAX_RETRIES,
)
def unreliable(self: Any, failures: int) -> Attempts:
    """Fail the first `failures` times, then return how many attempts it took.

    The number of retries travels with the message, so the outcome is the same wherever the task runs
    and however often a message is delivered. With more failures than `MAX_RETRIES` it fails for good.
    """
    attempt = self.request.retries + 1
    if attempt <= failures:
        raise TemporaryFailure(f"attempt {attempt} of {failures + 1}")
    return {"attempts": attempt}
