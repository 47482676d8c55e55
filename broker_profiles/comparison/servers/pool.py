"""The servers of one run: each started at most once, all closed at its end."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType

from .base import Server, ServerUnavailable
from .choose import provide


class ServerPool:
    """Servers on demand. A failure is remembered: the next test hears it at once."""

    def __init__(self, environ: Mapping[str, str] = os.environ):
        self._environ = environ
        self._had: dict[str, Server | ServerUnavailable] = {}
        self._lock = threading.Lock()

    def get(self, system: str) -> Server:
        """The run's server of this system, answering, whatever the last user did to it."""
        with self._lock:
            if system not in self._had:
                try:
                    self._had[system] = provide(system, self._environ)
                except ServerUnavailable as error:
                    self._had[system] = error
            had = self._had[system]
        if isinstance(had, ServerUnavailable):
            # A new one each time: a raised exception would collect tracebacks.
            raise ServerUnavailable(*had.args)
        had.heal()
        return had

    def report(self) -> list[str]:
        """A line for each system that was asked for: which server, or why there is none."""
        return [
            had.describe() if isinstance(had, Server) else str(had) for _, had in sorted(self._had.items())
        ]

    def close(self) -> None:
        """Close every server, also when one of them fails to."""
        failed: list[Exception] = []
        with self._lock:
            for had in self._had.values():
                if isinstance(had, Server):
                    try:
                        had.close()
                    except Exception as error:
                        failed.append(error)
            self._had.clear()
        if failed:
            raise ExceptionGroup("servers that could not be closed", failed)

    def __enter__(self) -> ServerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
