"""Worker processes for a while: started, waited for, and ended, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from celery import Celery

from broker_profiles.errors import BrokerProfilesError, redact

#: Seconds a worker may take to answer its first ping, and to end after SIGTERM.
_START, _END = 30.0, 15.0

#: Seconds to wait for the answers to one ping.
_PING = 0.3


class WorkersNotReady(BrokerProfilesError):
    """No worker answered within {seconds:g} s. The last thing one of them said: {said}"""


class WorkerFailed(BrokerProfilesError):
    """A worker ended with status {status}. The last thing it said: {said}"""


class Workers:
    """Workers on the queues of one application, in processes of their own; a context manager."""

    def __init__(self, count: int, options: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        # The process id keeps the workers of two demos on one broker apart.
        self.names = [f"demo{number}-{os.getpid()}@localhost" for number in range(1, count + 1)]
        self._options = list(options)
        self._environ = dict(environ)
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                self._processes.append(self._start(name))
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        # Mingle and gossip only make the start slower: these workers have nobody to learn from.
        command = [sys.executable, "-P", "-m", "celery", "-A", "tasks", "worker", f"--hostname={name}"]
        command += ["--loglevel=warning", "--without-mingle", "--without-gossip", *self._options]
        with self._log(name).open("wb") as log:
            # In a session of its own, so that Ctrl-C reaches this process, which ends them in order.
            return subprocess.Popen(
                command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, app: Celery) -> None:
        """Return when every worker has answered a ping. Raises `WorkersNotReady` or `WorkerFailed`."""
        deadline = time.monotonic() + _START
        waiting = set(self.names)
        while waiting:
            self.check()
            if time.monotonic() >= deadline:
                raise WorkersNotReady(seconds=_START, said=self._last_words(min(waiting)))
            for answer in app.control.ping(destination=sorted(waiting), timeout=_PING):
                waiting -= set(answer)

    def check(self) -> None:
        """Raise `WorkerFailed` if a worker has ended."""
        for name, process in zip(self.names, self._processes, strict=True):
            if process.poll() is not None:
                raise WorkerFailed(status=process.returncode, said=self._last_words(name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        statuses = self._end()
        for name, status in zip(self.names, statuses, strict=True):
            if status and kind is None:
                raise WorkerFailed(status=status, said=self._last_words(name))

    def _end(self) -> list[int]:
        """End all in order, and whatever is left after a while at once; return their exit statuses."""
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + _END
        try:
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            # The group, for the children of a worker that was killed live on; also after a second Ctrl-C.
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            statuses = [process.wait() for process in self._processes]
        return statuses

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").split("\n")
        return redact(next((line.strip() for line in reversed(lines) if line.strip()), "nothing"))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into Ctrl-C inside the block, so that what was started is ended."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):
            stack.callback(_restore(number, signal.signal(number, interrupt)))
        yield


def _restore(number: signal.Signals, previous: object) -> Callable[[], None]:
    def restore() -> None:
        signal.signal(number, previous)  # type: ignore[arg-type]

    return restore
