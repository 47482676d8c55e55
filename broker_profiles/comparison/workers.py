"""Workers as processes of their own, the way users run them, and what can be done to them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from broker_profiles.comparison.ledger import Ledger
from broker_profiles.comparison.servers.guard import guard, kill_tree
from broker_profiles.comparison.variables import PREFIX_VARIABLE, SETTINGS_VARIABLE

Pool = Literal["prefork", "solo", "threads"]

#: How long a worker may take to start, in seconds: processes start slowly on a busy machine.
START_SECONDS = 60.0


class WorkerEnded(Exception):
    """A worker ended though nobody asked it to; the text has its last words."""


class Worker:
    """One `celery worker` with everything it started."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.add("process", str(self._process.pid))

    @property
    def pid(self) -> int:
        """The main process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Return the processes of its pool."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL, to the main process and its pool at once: as a machine that vanishes."""
        kill_tree(self.pid)
        self._process.wait(10)
        guard.drop("process", str(self.pid))

    def kill_main(self) -> None:
        """SIGKILL, to the main process alone; its pool is left without a parent."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP, to the main process and its pool."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, to the main process and its pool."""
        os.killpg(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, to the main process: as a deploy does."""
        self._process.terminate()

    def wait(self, seconds: float) -> int | None:
        """Return the exit status once it has ended, none where it has not in so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def memory(self) -> int:
        """Return the proportional set size of all its processes, in bytes."""
        total = 0
        for pid in (self.pid, *self.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_full_info().pss
        return total

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


class Workers:
    """Starts workers on a profile; ends them all."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        ledger: Ledger,
        wait: Callable[[Callable[[], Any], float, str], Any],
    ) -> None:
        self._environ = environ
        self._folder = folder
        self._ledger = ledger
        self._wait = wait
        self._started: list[Worker] = []
        #: How each worker that is to run was started.
        self._how: dict[Worker, tuple[Sequence[str], Mapping[str, str], Sequence[str]]] = {}
        # Unique on a server that other runs use too: a ping must reach ours alone.
        self._host = environ[PREFIX_VARIABLE]

    def start(
        self,
        *options: str,
        pool: Pool = "prefork",
        concurrency: int = 2,
        environ: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        before: Sequence[str] = (),
        ready: bool = True,
    ) -> Worker:
        """Start a worker, and wait until it consumes unless told not to.

        `environ` and `settings` (Celery's) are added to the profile's; `before` is put before the
        command, such as `["prlimit", "--as=..."]`. Raises `WorkerEnded`.
        """
        arguments = [f"--pool={pool}", f"--concurrency={concurrency}", "--loglevel=INFO", *options]
        merged = {**self._environ, **(environ or {})}
        if settings:
            given = json.loads(merged.get(SETTINGS_VARIABLE, "{}"))
            merged[SETTINGS_VARIABLE] = json.dumps({**given, **settings})
        worker = self._start(arguments, merged, before)
        if ready:
            self.wait_ready(worker)
        return worker

    def _start(self, arguments: Sequence[str], environ: Mapping[str, str], before: Sequence[str]) -> Worker:
        number = len(self._started) + 1
        name = f"w{number}@{self._host}"
        command = [*before, sys.executable, "-m", "celery", "-A", "broker_profiles.comparison.workload"]
        command += ["worker", f"--hostname={name}", *arguments]
        worker = Worker(name, command, environ, self._folder / f"worker-{number}.log")
        self._started.append(worker)
        self._how[worker] = (arguments, environ, before)
        return worker

    def revive(self) -> None:
        """Start a worker in place of each that has ended, as a supervisor does; wait until all consume."""
        for worker in [worker for worker in self._how if not worker.alive]:
            self._start(*self._how.pop(worker))
        for worker in self._started:
            if worker.alive:
                self.wait_ready(worker)

    def wait_ready(self, worker: Worker, seconds: float = START_SECONDS) -> None:
        """Return once the worker consumes. Raises `WorkerEnded`."""

        def is_ready() -> bool:
            if not worker.alive:
                raise WorkerEnded(f"worker {worker.name} ended: {worker.last_words()[-500:]}")
            return worker.name in self._ledger.ids("ready")

        self._wait(is_ready, seconds, f"worker {worker.name} is ready")

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._started)

    def close(self) -> None:
        """End every worker, at once."""
        for worker in self._started:
            worker.kill()
