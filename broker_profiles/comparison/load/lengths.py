"""What a long queue costs: how fast tasks go in and out while very many wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from broker_profiles.comparison.load import sending
from broker_profiles.comparison.load.bench import Bench
from broker_profiles.comparison.load.measure import Measured
from broker_profiles.comparison.load.rates import hopeless, windows
from broker_profiles.comparison.load.rows import Sample

ENQUEUE, THROUGHPUT = MEASURES = ("queue-length-enqueue", "queue-length-throughput")

#: The tasks that go in, and come out, at each length: so many windows of so many, a sample each.
_WINDOWS = 5
_WINDOW = 200
_TASKS = _WINDOWS * _WINDOW

#: How long a window may take to go in, in seconds: a slow column has smaller ones.
_WINDOW_SECONDS = 2.0

#: How long a part of the filling takes, in seconds; after each it is asked whether there is hope.
_PART_SECONDS = 4.0

#: How long is waited for as many tasks to come out, in seconds.
_PATIENCE = 20.0

_NOTE = f"one filling, {_WINDOWS} windows of {_WINDOW} tasks"
_UNJUDGED = f"{_NOTE}; what still waits at the end is thrown away, so there is no verdict"


def lengths(bench: Bench, budgets: Mapping[int, float]) -> Iterator[Measured]:
    """Yield what each length costs, the shortest first, up to the first that is not reached in its budget.

    `budgets` is tasks waiting -> the seconds that may be spent on getting there from the one before.
    """
    # Nobody would want a million messages in a server that is used for something else.
    waiting, missed = 0, "" if bench.owned else "not tried: the server was not started here"
    if not missed:
        _warm_up(bench)
    for length, budget in sorted(budgets.items()):
        if not missed:
            bench.stop_pool()
            sent, missed = _fill(bench, length - waiting, budget)
            waiting += sent
        if missed:
            yield from (Measured(measure, length, Sample(None, note=missed)) for measure in MEASURES)
            continue
        for measure, (samples, change) in ((ENQUEUE, _in(bench)), (THROUGHPUT, _out(bench))):
            yield from (Measured(measure, length, sample) for sample in samples)
            waiting += change


def _warm_up(bench: Bench) -> None:
    sent = bench.send(sending.one_by_one, _WINDOW, _PATIENCE, seconds=_PATIENCE)
    bench.work(sent["ids"], _PATIENCE, {})


def _fill(bench: Bench, count: int, budget: float) -> tuple[int, str]:
    """Send so many, or as many as there is hope for; return how many that were, and why not all."""
    done, took, began = 0, 0.0, time.monotonic()
    while done < count:
        if took >= budget or hopeless(done, count, took, budget):
            return done, f"not reached in {budget:g} s: {done:,} of {count:,} tasks sent in {took:.0f} s"
        done += bench.fill(count - done, min(budget - took, _PART_SECONDS))
        took = time.monotonic() - began
    return done, ""


def _in(bench: Bench) -> tuple[list[Sample], int]:
    """Return the rates at which the next tasks go in, and how that changed the number that wait."""
    disturbed = bench.disturbed()
    seconds = _WINDOW_SECONDS
    found = [bench.send(sending.one_by_one, _WINDOW, seconds, seconds=seconds) for _ in range(_WINDOWS)]
    counts = [len(sent["ids"]) for sent in found]
    rates = [count / sent["seconds"] for count, sent in zip(counts, found, strict=True)]
    return [Sample(rate, disturbed, note=_NOTE) for rate in rates], sum(counts)


def _out(bench: Bench) -> tuple[list[Sample], int]:
    """Return the rates at which the next tasks come out, and how that changed the number that wait."""
    disturbed = bench.disturbed()
    bench.marks.update()
    before = set(bench.marks.runs)
    bench.start_pool()
    bench.wait(lambda: len(bench.marks.runs) > len(before) + _TASKS, _PATIENCE)
    bench.stop_pool()
    bench.marks.update()
    starts = [min(bench.marks.runs[id_]) for id_ in bench.marks.runs.keys() - before]
    samples = [Sample(rate, disturbed, note=_UNJUDGED) for rate in windows(starts, _WINDOW, _WINDOWS)]
    missed = Sample(None, note=f"{len(starts):,} came out in {_PATIENCE:g} s")
    return samples or [missed], -len(starts)
