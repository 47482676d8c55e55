"""Workers as processes of their own, the way users run them, and what can be done to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from broker_profiles.comparison.ledger import Ledger
from broker_profiles.comparison.processes import CELERY, Process
from broker_profiles.comparison.scenario import TooLate
from broker_profiles.comparison.variables import PREFIX_VARIABLE, SETTINGS_VARIABLE

Pool = Literal["prefork", "solo", "threads"]

#: How long a worker may take to start, in seconds: processes start slowly on a busy machine.
START_SECONDS = 60.0


class WorkerEnded(Exception):
    """A worker ended, or did not begin to work, though nobody asked it to; the text has its last words."""


class Worker(Process):
    """One `celery worker` with everything it started."""


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
        command, such as `["prlimit", "--as=..."]`. Raises `WorkerEnded`, also where the first worker of a
        case does not get ready though no fault came before: that says nothing about a promise.
        """
        untouched = not self._started and not self._ledger.of("fault")
        arguments = [f"--pool={pool}", f"--concurrency={concurrency}", "--loglevel=INFO", *options]
        merged = {**self._environ, **(environ or {})}
        if settings:
            given = json.loads(merged.get(SETTINGS_VARIABLE, "{}"))
            merged[SETTINGS_VARIABLE] = json.dumps({**given, **settings})
        worker = self._start(arguments, merged, before)
        try:
            if ready:
                self.wait_ready(worker)
        except TooLate:
            if not untouched:
                raise
            raise WorkerEnded(
                f"worker {worker.name} is not ready within {START_SECONDS:g} s, though nothing was done to "
                f"its broker: {worker.last_words()[-500:]}"
            ) from None
        return worker

    def _start(self, arguments: Sequence[str], environ: Mapping[str, str], before: Sequence[str]) -> Worker:
        number = len(self._started) + 1
        name = f"w{number}@{self._host}"
        command = [*before, *CELERY, "worker", f"--hostname={name}", *arguments]
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

    def wait_ready(self, worker: Worker) -> None:
        """Return once the worker consumes. Raises `WorkerEnded`."""

        def is_ready() -> bool:
            # Asked first: what has ended by now has written down by now that it was ready.
            ended = not worker.alive
            if worker.name in self._ledger.ids("ready"):
                return True  # and perhaps dead by now, of a task that kills it
            if ended:
                raise WorkerEnded(f"worker {worker.name} ended: {worker.last_words()[-500:]}")
            return False

        self._wait(is_ready, START_SECONDS, f"worker {worker.name} is ready")

    @property
    def prefixes(self) -> set[str]:
        """The prefixes of the applications that workers were started for."""
        return {environ[PREFIX_VARIABLE] for _, environ, _ in self._how.values()}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._started)

    def close(self) -> None:
        """End every worker, at once."""
        for worker in self._started:
            worker.kill()
