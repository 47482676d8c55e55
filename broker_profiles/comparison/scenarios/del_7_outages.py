"""DEL-7: after an outage, however it looked, work resumes within 15 s, without a restart of anything.

The clients and workers of a case are the same before and after: nobody revives them.
"""

from __future__ import annotations

import time

from broker_profiles.comparison.ledger import Event
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "DEL-7"

#: The bound of the promise, in seconds from the broker's return to the start of a task sent after it.
BOUND = 15.0

#: How much longer than the bound work is waited for, in seconds, to tell what is late from what never comes.
_PATIENCE = 15.0

#: Seconds between two tasks that are sent where a call proves nothing.
_EVERY = 1.0

#: How long it may take, in seconds, until clients and workers do no more than wait.
_IDLE_WITHIN = 15.0

#: What a narrow network carries, in bytes a second.
_NARROW = 20_000


@case("the broker is away for 10 s", quick=True)
def away_for_10_seconds(stage: Stage) -> None:
    """Stop it in order and start it again."""
    worker = _working(stage)
    stage.server.stop()
    stage.pause(10)
    stage.server.start()
    _work_resumes(stage, worker)


@case("nothing listens where the broker was, for 60 s")
def away_for_60_seconds(stage: Stage) -> None:
    """Cut the network: connections are refused long enough for every retry to have become slow."""
    worker = _working(stage)
    stage.server.cut()
    stage.pause(60)
    stage.server.heal()
    _work_resumes(stage, worker)


@case("the broker is frozen for 30 s")
def frozen_for_30_seconds(stage: Stage) -> None:
    """Freeze it: connections stay, and nothing answers."""
    worker = _working(stage)
    stage.server.freeze()
    stage.pause(30)
    stage.server.thaw()
    _work_resumes(stage, worker)


@case("the network carries nothing for 40 s")
def partition_of_40_seconds(stage: Stage) -> None:
    """Stall the network for longer than a lease, with a task running and others waiting."""
    worker = _working(stage)
    stage.client.sent("note", 1, 10.0)
    stage.client.sent("note", 5)
    stage.server.stall()
    stage.pause(40)
    stage.server.heal()
    _work_resumes(stage, worker)


@case("every connection of clients and workers is half open", quick=True)
def half_open(stage: Stage) -> None:
    """Let nothing more pass over the connections there are; new ones work, so the broker is back at once.

    The worker has nothing to do by then: who only waits to hear something has to find out by himself that
    nobody is there any more, and what else he did just then would have told him.
    """
    worker = _working(stage)
    stage.wait_until_idle(_IDLE_WITHIN)
    stage.server.half_open()
    _work_resumes(stage, worker)


@case("the network is slow and loses packets")
def slow_and_lossy(stage: Stage) -> None:
    """Delay everything and lose a part of it: tasks are slow, and neither lost nor run twice."""
    stage.server.slow_down(delay=0.05, loss=0.1)
    stage.workers.start()
    sent = stage.client.sent("note", 20, within=60)
    stage.wait_for(sent, 60)
    stage.require_clean()


@case("the network carries 20,000 bytes a second, and somebody sends more")
def narrow(stage: Stage) -> None:
    """Let what is sent pile up before a reader that is too slow for it: it takes longer, and all runs."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    stage.server.slow_down(bytes_per_second=_NARROW)
    sent = stage.client.sent("note", 20, 0.0, "x" * (_NARROW // 10), within=60)
    stage.wait_for(sent, 60)
    stage.server.heal()
    stage.require_clean()


def _working(stage: Stage) -> Worker:
    """Start a worker, and see it work."""
    worker = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 3), 20)
    return worker


def _work_resumes(stage: Stage, worker: Worker) -> None:
    """Send until it succeeds. That task and all before it run, on the same worker, in time.

    Where `delay()` may return though nobody has the task (no DEL-3), tasks are sent until one runs, and
    those that went nowhere are not asked for.
    """
    proves = stage.profile.guarantees.holds("DEL-3")
    before = stage.ledger.ids("sent")
    back = stage.ledger.note("the broker can be reached")
    sent = [stage.sends_again(BOUND + _PATIENCE)]
    next_one = time.monotonic() + _EVERY

    def start() -> Event | None:
        nonlocal next_one
        if not proves and time.monotonic() > next_one:
            sent.append(stage.sends_again(BOUND + _PATIENCE))
            next_one = time.monotonic() + _EVERY
        ids = {answer.id for answer in sent}
        return next((event for event in stage.ledger.of("start") if event.id in ids), None)

    started = stage.wait_for_value(start, BOUND + _PATIENCE, "a task sent after the outage did not start")
    stage.require(worker.alive, "the worker ended by itself")
    wanted = stage.ledger.ids("sent") if proves else before | {started.id}
    stage.wait_for(wanted, BOUND + _PATIENCE, what="whose delay() returned have not run")
    stage.in_time("seconds from the broker's return to the next start", started.time - back.time, BOUND)
