"""What the result stores have in common: the waiting times of a store that is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker_profiles.profile import Guarantees, Setting
from broker_profiles.results.waiting import WAIT
from broker_profiles.settings import Environment

#: A store that expires its own rows, counts chord parts and can be read from anywhere.
FULL = Guarantees(kept=frozenset({"RES-1", "RES-2", "RES-3", "RES-4"}))


def bounded_wait(environment: Environment, **others: Any) -> Iterator[Setting]:
    """Yield the bound on `get()` without a timeout, with other options of the backend's connection."""
    yield Setting(
        "result_backend_transport_options",
        {**others, WAIT: environment.number("result_wait_seconds")},
        "get() without a timeout does not wait for ever",
        environment.source("result_wait_seconds"),
    )


def bounded_retries(environment: Environment) -> Iterator[Setting]:
    """Yield the bounds on a store that does not answer, too."""
    # A result store that is away does not hold delay() up (Celery: 19 s).
    yield from bounded_wait(
        environment, retry_policy={"timeout": environment.number("result_timeout_seconds")}
    )


def retried_operations() -> Iterator[Setting]:
    """Yield what makes a worker keep a finished result until the store is back."""
    yield Setting(
        "result_backend_always_retry",
        True,
        "a result is stored when its store is back, not dropped",
    )
    yield Setting("result_backend_max_retries", 60, "for about ten minutes, then the task is delivered again")
