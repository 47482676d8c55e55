"""Why a message is set aside, in the words of a dead letter: pure functions.

The detail of a dead letter is one line, and below it the traceback of the last failure where there is one.
"""

from __future__ import annotations

from typing import Any

from broker_profiles.transports import validity
from broker_profiles.transports.store import REJECTED, UNKNOWN_TASK

#: The most characters of a traceback that are kept: its end, which says where it failed.
_LONGEST_TRACEBACK = 7000


def failure(info: Any) -> str:
    """Return a detail for an `ExceptionInfo` of Celery: the error, and its traceback."""
    error = getattr(info.exception, "exc", info.exception)
    traceback = validity.storable(str(info.traceback).strip()[-_LONGEST_TRACEBACK:])
    return f"{validity.text_of(error)}\n{traceback}"


def exhausted(deliveries: int, last: str) -> str:
    """Return the detail of a message that was delivered so often, and failed so the last time."""
    return f"delivered {deliveries} times and never finished: {last}"


def why_rejected(error: BaseException | None) -> tuple[str, str]:
    """Return the reason and the detail for which Celery rejects a message while it handles an error.

    For a task that it does not know it handles the `KeyError` of its table of tasks; for a message that names
    no task another one, of the word `task`.
    """
    if error is None:
        return REJECTED, ""
    if isinstance(error, KeyError) and error.args and error.args[0] != "task":
        return UNKNOWN_TASK, f"no task {error.args[0]!r:.200} is registered with the worker"
    return REJECTED, validity.text_of(error)
