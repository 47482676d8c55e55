"""ETA-2: 100,000 delayed tasks neither delay an immediate one nor grow a worker."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from broker_profiles.comparison.account import lateness
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ETA-2"

#: The bound of the promise, in seconds from the call of `delay()` to the start.
BOUND = 1.0

#: What a worker may grow by, in MiB: connections, caches; 100,000 messages held are hundreds.
GROWTH = 20

#: The promised number, how many of them still show something, and how long they may take to send, in seconds.
_MANY = 100_000
_ENOUGH = 5_000
_SENDING = 45.0

#: How many processes send them, with how many threads each, for each waits for the broker most of the time.
_SENDERS, _THREADS = 2, 10

#: The delay of what waits, in seconds: far from due while the case lasts.
_HOUR = 3600

#: When an immediate task that has not started counts as held, in seconds.
_HELD = 10.0


def flood(app: Any, count: int, seconds: float) -> int:
    """Send so many tasks that are due in an hour, for so many seconds at most; return how many were sent."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(_THREADS) as together:
        share = count // _THREADS
        return sum(together.map(lambda _: _send(app, share, until), range(_THREADS)))


def _send(app: Any, count: int, until: float) -> int:
    task = app.tasks["comparison.note"]
    with app.producer_or_acquire() as producer, producer.batch():
        for sent in range(count):
            if time.monotonic() > until:
                return sent
            task.apply_async(countdown=_HOUR, producer=producer)
    return count


@case("an immediate task behind 500 that are due in an hour", quick=True)
def modest(stage: Stage) -> None:
    """Send a backlog to a running worker, then immediate tasks."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    stage.facts["delayed tasks"] = stage.client.call(flood, 500, 20.0, within=40)
    stage.pause(1)  # for a worker that takes them to itself
    _immediate_at_once(stage)


@case("an immediate task behind up to 100,000, and the worker's memory", fresh=True)
def a_hundred_thousand(stage: Stage) -> None:
    """Send as many as can be sent in the time; a slow server takes fewer, and the facts say how many."""
    worker = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 20), 30)
    before = worker.memory()
    sent = _many(stage)
    stage.facts["delayed tasks"] = sent
    if sent < _ENOUGH:
        stage.not_applicable(f"only {sent:,} delayed tasks could be sent within {_SENDING:g} s")
    stage.pause(3)  # for a worker that takes them to itself
    _immediate_at_once(stage)
    grown = (worker.memory() - before) / 2**20
    stage.facts["worker grown, MiB"] = round(grown, 1)
    stage.require(grown <= GROWTH, f"the worker has grown by {grown:.0f} MiB, and {GROWTH} are allowed")


def _many(stage: Stage) -> int:
    senders = [stage.another_client() for _ in range(_SENDERS)]
    with ThreadPoolExecutor(_SENDERS) as together:
        calls = [
            together.submit(sender.call, flood, _MANY // _SENDERS, _SENDING, within=_SENDING + 30)
            for sender in senders
        ]
    return sum(call.result() for call in calls)


def _immediate_at_once(stage: Stage) -> None:
    """Send immediate tasks, one after the other, and require that each starts in time, and nothing else."""
    ids: list[str] = []
    for _ in range(5):
        (id_,) = stage.client.sent("note")
        ids.append(id_)
        stage.wait_for([id_], _HELD, what="sent behind the delayed ones did not run")
    called = {event.id: event.time for event in stage.ledger.of("sending")}
    late = lateness(stage.ledger.events(), {id_: called[id_] for id_ in ids})
    stage.require_clean()  # none of those that are due in an hour has run
    stage.in_time("seconds to the start of an immediate task, at most", max(late.values()), BOUND)
