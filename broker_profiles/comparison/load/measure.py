"""One measurement of one column: everything that a round takes, on a queue of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker_profiles.comparison.client import ClientError, ClientHung
from broker_profiles.comparison.load import sending
from broker_profiles.comparison.load.bench import PROCESSES, Bench, Worked
from broker_profiles.comparison.load.rates import latencies, throughput
from broker_profiles.comparison.load.rows import Parameter, Sample
from broker_profiles.comparison.marks import verdict
from broker_profiles.comparison.workers import WorkerEnded
from broker_profiles.errors import redact

#: Why a round ends early.
FAILURES = (ClientError, ClientHung, WorkerEnded)

_TEN_MILLISECONDS = 0.01

#: Tasks that go through before anything is measured, twice: the second time tells how many to take.
_WARM_UP = 60

#: What even the slowest column gets.
_FEWEST = 20

#: Which share of what a column can do a rate may be: above it latency is the age of a backlog.
_SUSTAINABLE = 0.6


class Behind(Exception):
    """Tasks have not run in time, and would be in the way of all that comes after."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much a round measures; times are in seconds.

    `tasks` are sent each way, or as many as there is time for in `send_seconds`; a column that would work
    longer than `work_seconds` on what it gets, gets fewer. `slow_tasks` is how many take 10 ms, `rates`
    what is sent a second for `rate_seconds` each, `sizes` bytes of text -> tasks of that size.
    """

    tasks: int
    send_seconds: float
    work_seconds: float
    slow_tasks: int
    rates: Sequence[float]
    rate_seconds: float
    sizes: Mapping[int, int]
    #: How long is waited for what does not come.
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample and where it belongs; `ids` are the tasks it stands for."""

    measure: str
    parameter: Parameter
    sample: Sample
    ids: Sequence[str] = ()


class Round:
    """Measures a column once, and keeps what it has found when something fails."""

    def __init__(self, bench: Bench, size: Size, ceiling: float) -> None:
        self._bench = bench
        self._size = size
        self._found: list[Measured] = []
        self._how = f"{PROCESSES} worker processes; the ledger alone would take {ceiling:,.0f}/s"
        self._rate = 0.0

    def __call__(self) -> list[Measured]:
        """Return what was measured, each with the verdict on its tasks."""
        steps: dict[str, Callable[[], None]] = {
            "throughput": self._backlog,
            "throughput-10ms": self._ten_milliseconds,
            "latency": self._latencies,
            "message-size": self._sizes,
            "memory": self._memory,
        }
        self._warm_up()
        for measure, step in steps.items():
            try:
                step()
            except Behind:
                break
            except FAILURES as error:
                self._note(measure, None, Sample(None, note=redact(error)))
                break
        return [self._judged(measured) for measured in self._found]

    def _warm_up(self) -> None:
        bench = self._bench
        _ = bench.worker
        for _ in range(2):
            with bench.idle_pool():
                sent = bench.send(sending.one_by_one, _WARM_UP, 10.0, seconds=10.0)
            self._rate = bench.work(sent["ids"], self._size.patience, {}).rate or 0.0

    def _tasks(self, wanted: int, share: float = 1.0) -> int:
        """Return how many of the wanted tasks this column works through in its share of the time."""
        return min(wanted, max(_FEWEST, int(self._rate * self._size.work_seconds * share)))

    def _backlog(self) -> None:
        """Send one by one and in bulk while nobody works, then work it all off."""
        bench, count = self._bench, self._tasks(self._size.tasks, 0.5)
        before = bench.cpu()
        with bench.idle_pool():
            one = self._sent("enqueue", sending.one_by_one, count)
            bulk = self._sent("enqueue-bulk", sending.bulk, count)
            ids = [*one["ids"], *bulk["ids"]]
            disturbed = bench.disturbed()
        worked = bench.work(ids, self._size.patience, before)
        self._rate = worked.rate or self._rate
        spent = {**worked.cpu, "client": one["cpu"] + bulk["cpu"]}
        sample = Sample(
            worked.rate,
            disturbed,
            cpu_per_1000=_per_1000(spent, len(ids)),
            memory=bench.memory(),
            note=self._how,
        )
        self._worked("throughput", None, sample, ids, worked)

    def _sent(self, measure: str, send: Callable[..., Any], count: int) -> dict[str, Any]:
        """Send, and note how fast that went."""
        bench, seconds = self._bench, self._size.send_seconds
        disturbed = bench.disturbed()
        before = bench.cpu()
        sent: dict[str, Any] = bench.send(send, count, seconds, seconds=seconds)
        spent = {"client": sent["cpu"], **_less(bench.cpu(), before, without="workers")}
        number = len(sent["ids"])
        note = "delay() in a loop, one client"
        if "batched" in sent:
            note = "one producer in a kombu batch" if sent["batched"] else "one producer; no batches here"
        sample = Sample(number / sent["seconds"], disturbed, cpu_per_1000=_per_1000(spent, number), note=note)
        self._note(measure, None, sample, sent["ids"])
        return sent

    def _ten_milliseconds(self) -> None:
        """Work off tasks that take a while each."""
        bench, size = self._bench, self._size
        count, seconds = self._tasks(size.slow_tasks), size.send_seconds
        disturbed = bench.disturbed()
        before = bench.cpu()
        with bench.idle_pool():
            sent = bench.send(sending.one_by_one, count, seconds, _TEN_MILLISECONDS, seconds=seconds)
        worked = bench.work(sent["ids"], size.patience, before)
        spent = _per_1000({**worked.cpu, "client": sent["cpu"]}, len(sent["ids"]))
        sample = Sample(worked.rate, disturbed, cpu_per_1000=spent, note=f"{PROCESSES} worker processes")
        self._worked("throughput-10ms", None, sample, sent["ids"], worked)

    def _latencies(self) -> None:
        """Send at fixed rates to a worker that waits; from when each was to be sent to its start."""
        for rate in self._size.rates:
            if rate > self._rate * _SUSTAINABLE:
                note = f"not tried: too near to the {self._rate:,.0f}/s that it can do"
                self._note("latency", rate, Sample(None, note=note))
                continue
            disturbed = self._bench.disturbed()
            seconds = self._size.rate_seconds
            sent = self._bench.send(sending.paced, rate, seconds, seconds=seconds)
            worked = self._bench.work(sent["ids"], self._size.patience, {})
            spread = [1000 * late for late in latencies(sent["intended"], worked.starts)]
            value = statistics.median(spread) if spread else None
            sample = Sample(value, disturbed, spread=spread)
            self._worked("latency", rate, sample, sent["ids"], worked)

    def _sizes(self) -> None:
        """Send tasks with much to carry to a worker that waits; from the first send to the last start."""
        for size, tasks in self._size.sizes.items():
            try:
                self._of_size(size, self._tasks(tasks, 0.5))
            except ClientError as error:
                self._note("message-size", size, Sample(None, note=redact(error)))

    def _of_size(self, size: int, tasks: int) -> None:
        bench, seconds = self._bench, self._size.send_seconds
        disturbed = bench.disturbed()
        sent = bench.send(sending.one_by_one, tasks, seconds, 0.0, size, seconds=seconds)
        worked = bench.work(sent["ids"], self._size.patience, {})
        rate = throughput({"": sent["began"], **worked.starts})
        sample = Sample(rate, disturbed, note="sent and worked on at once")
        self._worked("message-size", size, sample, sent["ids"], worked)

    def _memory(self) -> None:
        """Look at what worker and broker hold after all this."""
        for who, size in self._bench.memory().items():
            self._note("memory", who, Sample(float(size), note="proportional set size, after the round"))

    def _note(self, measure: str, parameter: Parameter, sample: Sample, ids: Sequence[str] = ()) -> None:
        self._found.append(Measured(measure, parameter, sample, ids))

    def _worked(
        self, measure: str, parameter: Parameter, sample: Sample, ids: Sequence[str], worked: Worked
    ) -> None:
        """Note a sample of tasks that ran. Raises `Behind` where some did not."""
        if worked.missing:
            late = f"{worked.missing:,} had not run after {self._size.patience:g} s"
            sample = replace(sample, note="; ".join(filter(None, [sample.note, late])))
        self._found.append(Measured(measure, parameter, sample, ids))
        if worked.missing:
            raise Behind

    def _judged(self, measured: Measured) -> Measured:
        """Add the verdict; at the end of the round, so that a late second run is seen."""
        if not measured.ids:
            return measured
        self._bench.marks.update()
        found = verdict(measured.ids, self._bench.marks.runs)
        return replace(measured, sample=replace(measured.sample, account=found))


def _per_1000(spent: Mapping[str, float], tasks: int) -> dict[str, float]:
    return {name: 1000 * seconds / tasks for name, seconds in spent.items()}


def _less(now: Mapping[str, float], before: Mapping[str, float], *, without: str) -> dict[str, float]:
    return {name: now[name] - before[name] for name in now if name in before and name != without}
