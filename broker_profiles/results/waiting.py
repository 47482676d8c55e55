"""How long `AsyncResult.get()` waits where nobody says: not for ever, as with Celery."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeoutError

from broker_profiles.options import OPTIONS

#: The name in Celery's setting `result_backend_transport_options`.
WAIT = "wait_seconds"

_OPTION = OPTIONS["result_wait_seconds"]


class NoResult(CeleryTimeoutError):  # type: ignore[misc]
    """What `get()` without a timeout raises in the end; Celery's `TimeoutError`, as with one."""


class BoundedWait:
    """A part of a result backend, before Celery's class: waits for no result without end.

    A timeout that the caller gives counts. That of None cannot be told from none at all.
    """

    app: Any

    def wait_for_pending(self, result: Any, timeout: float | None = None, **options: Any) -> Any:
        """Wait for one result. Raises `NoResult`, or Celery's `TimeoutError` for the caller's timeout."""
        wait = super().wait_for_pending  # type: ignore[misc]
        if timeout is not None:
            return wait(result, timeout=timeout, **options)
        with self._default_wait(result.id, result) as seconds:
            return wait(result, timeout=seconds, **options)

    def iter_native(self, result: Any, timeout: float | None = None, **options: Any) -> Iterator[Any]:
        """Yield the results of a group as they come. Raises as `wait_for_pending` does."""
        iterate = super().iter_native  # type: ignore[misc]
        if timeout is not None:
            yield from iterate(result, timeout=timeout, **options)
            return
        with self._default_wait(getattr(result, "id", None) or "of a set") as seconds:
            yield from iterate(result, timeout=seconds, **options)

    @contextlib.contextmanager
    def _default_wait(self, what: str, result: Any = None) -> Iterator[float]:
        seconds = self.app.conf.result_backend_transport_options.get(WAIT, _OPTION.default)
        try:
            yield seconds
        except CeleryTimeoutError as error:
            if getattr(result, "_cache", None):
                raise  # it is there: this is what the task itself has raised
            text = (
                f"No result of the task {what} within {seconds:g} s, the longest that get() waits without a "
                f"timeout ({_OPTION.variable}): it is not done, was lost, or its result has expired."
            )
            raise NoResult(text) from error
