"""Chords where the store does not count their parts: they are looked for once a second, not for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import ceil
from typing import Any

from celery.exceptions import ChordError, MaxRetriesExceededError
from celery.result import result_from_tuple

from broker_profiles.options import OPTIONS
from broker_profiles.profile import Setting
from broker_profiles.settings import Environment

#: Seconds between two looks at the parts of a chord: Celery's default, named for it counts here.
_LOOK = 1.0

#: The most parts that an error names.
_NAMED = 3

_OPTION = OPTIONS["result_wait_seconds"]


def bounded_chords(environment: Environment) -> Iterator[Setting]:
    """Yield what ends the wait for the parts of a chord."""
    yield Setting("result_chord_retry_interval", _LOOK, "the parts of a chord are looked for once a second")
    yield Setting(
        "task_annotations",
        {"celery.chord_unlock": {"max_retries": ceil(environment.number(_OPTION.name) / _LOOK)}},
        "a chord whose part is lost fails in the end (Celery: looks for ever)",
        environment.source(_OPTION.name),
    )


class SaysUnfinished:
    """A part of a result backend, before Celery's class: the error of such a chord says what is missing."""

    app: Any

    def chord_error_from_stack(self, callback: Any, exc: Exception | None = None) -> Any:
        """Fail the body of a chord."""
        cause = exc.__cause__ if exc else None
        if isinstance(cause, MaxRetriesExceededError):
            unfinished = ChordError(self._unfinished(cause.task_kwargs.get("result") or ()))
            unfinished.__cause__, exc = cause, unfinished
        return super().chord_error_from_stack(callback, exc)  # type: ignore[misc]

    def _unfinished(self, parts: Any) -> str:
        missing: list[str] = []
        with contextlib.suppress(Exception):  # the store may be away: then it is said without their names
            header = [result_from_tuple(part, app=self.app) for part in parts]
            missing = [str(result.id) for result in header if not result.ready()]
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        return (
            f"The chord cannot finish: {len(missing)} of {len(parts)} parts have no result"
            f"{f' ({named})' if named else ''}. They were lost or take longer than a chord waits for them "
            f"({_OPTION.variable})."
        )
