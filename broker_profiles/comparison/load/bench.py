"""One column's client and worker for a while, and what both and the broker spend on it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from broker_profiles.comparison.client import Client
from broker_profiles.comparison.column import Host
from broker_profiles.comparison.load import sending
from broker_profiles.comparison.load.probe import Prober
from broker_profiles.comparison.load.rates import throughput
from broker_profiles.comparison.marks import Marks
from broker_profiles.comparison.servers.usage import cpu_seconds
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker, WorkerEnded

#: How many processes work, on every column alike.
PROCESSES = 2

#: How many clients fill a queue together.
_FILLERS = 2

_POLL_SECONDS = 0.02

#: How much longer than it is given a call of the client may take, in seconds.
_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of waiting for tasks: their starts, and what was spent meanwhile.

    `rate` is tasks a second between the first start and the last, none for fewer than two.
    """

    starts: Mapping[str, float]
    missing: int
    rate: float | None
    cpu: Mapping[str, float]


class Bench:
    """A stage without links, one client, one worker; a context manager.

    Raises `ServerUnavailable`, and what clients and workers raise.
    """

    def __init__(self, host: Host, folder: Path, prober: Prober, cancelled: Callable[[], bool]) -> None:
        self.column = host.column
        #: Whether all its servers were started here.
        self.owned = host.owned
        self._prober = prober
        self._broker = host.broker
        self._stage = Stage(host, folder, cancelled, direct=True)
        self._worker: Worker | None = None
        self._fillers = [self._stage.client, *(self._stage.another_client() for _ in range(_FILLERS - 1))]
        self.marks = Marks(self._stage.ledger.folder)

    def __enter__(self) -> Bench:
        self._stage.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stage.__exit__(kind, error, traceback)

    @property
    def worker(self) -> Worker:
        """The worker, which consumes; started when it is first asked for."""
        if self._worker is None:
            # What a worker logs of each task by default costs as much as the task.
            self._worker = self._stage.workers.start("--loglevel=WARNING", concurrency=PROCESSES)
        return self._worker

    def send(self, function: Callable[..., Any], *args: Any, seconds: float) -> Any:
        """Call one of the functions of `sending` in the client, which is to take so many seconds."""
        return self._stage.client.call(function, *args, within=seconds + _GRACE)

    def fill(self, count: int, seconds: float) -> int:
        """Send up to so many tasks in so many seconds with several clients at once; return how many."""
        share = -(-count // len(self._fillers))

        def part(client: Client) -> int:
            sent: int = client.call(sending.fill, share, seconds, within=seconds + _GRACE)
            return sent

        with ThreadPoolExecutor(len(self._fillers)) as threads:
            return sum(threads.map(part, self._fillers))

    def stop_pool(self) -> None:
        """Stop the processes that run tasks; the worker's main process goes on.

        So a backlog builds up before a worker that is warm, and leases and heartbeats are kept.
        """
        self._signal_pool(signal.SIGSTOP)

    def start_pool(self) -> None:
        """Let them go on."""
        self._signal_pool(signal.SIGCONT)

    @contextlib.contextmanager
    def idle_pool(self) -> Iterator[None]:
        """Stop the pool for the block."""
        self.stop_pool()
        try:
            yield
        finally:
            self.start_pool()

    def _signal_pool(self, number: signal.Signals) -> None:
        for child in self.worker.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def work(self, ids: Collection[str], within: float, cpu: Mapping[str, float]) -> Worked:
        """Wait until these tasks have run, at the most so many seconds; `cpu` was spent when they began."""
        wanted = set(ids)
        self.wait(lambda: wanted <= self.marks.runs.keys(), within)
        starts = self.marks.starts(wanted)
        spent = {name: now - cpu[name] for name, now in self.cpu().items() if name in cpu}
        return Worked(starts, len(wanted) - len(starts), throughput(starts), spent)

    def wait(self, condition: Callable[[], bool], within: float) -> bool:
        """Read marks until something is so; return whether it was in time. Raises `WorkerEnded`."""
        deadline = time.monotonic() + within
        while True:
            self.marks.update()
            if condition():
                return True
            if not self.worker.alive:
                raise WorkerEnded(f"worker {self.worker.name} ended: {self.worker.last_words()[-500:]}")
            if time.monotonic() > deadline:
                return False
            self._stage.pause(_POLL_SECONDS)

    def cpu(self) -> dict[str, float]:
        """Return the processor seconds of workers and broker so far; a broker out of sight is left out."""
        found = {"workers": cpu_seconds(self.worker.pid)}
        broker = self._broker.cpu_seconds() if self._broker is not None else None
        return found if broker is None else {**found, "broker": broker}

    def disturbed(self) -> bool:
        """Look at the machine, and wait a little where it is busy; return whether it still was then."""
        return self._prober.disturbed(lambda: sum(self.cpu().values()))

    def memory(self) -> dict[str, int]:
        """Return the memory of worker and broker now, in bytes; a broker out of sight is left out."""
        found = {"workers": self.worker.memory()}
        broker = self._broker.memory() if self._broker is not None else None
        return found if broker is None else {**found, "broker": broker}

    def clean(self) -> None:
        """End the worker and remove the queue, for the next to find the server as this did."""
        if self._worker is not None:
            self._worker.kill()
        self._stage.client.clean()
