"""ORD-1: 9 runs before 0, and a task without a priority is as one of the lowest."""

from __future__ import annotations

import random
from typing import Any

from broker_profiles.comparison.account import starts_in_order
from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ORD-1"

#: Every priority, and none.
_ALL: tuple[int | None, ...] = (None, *range(10))

#: How many levels are looked for where a profile says that it has none.
_LEVELS = 10

#: One process that takes the next task only when it is done with the last.
_ONE: dict[str, Any] = {"concurrency": 1}
_NO_HOARD = "--prefetch-multiplier=1"

#: How many of the tasks that are not urgent may still go first: a worker may hold the next ones already.
_HELD = 2

#: How many a worker may have taken ahead in full flow, and how many have to wait to tell.
_AHEAD, _FLOW = 8, 20

#: Seconds within which all have run.
_RUN = 60.0


@case("every priority and none, sent mixed, to one process", quick=True)
def every_priority(stage: Stage) -> None:
    """Three of each wait in the queue, in a random order that is always the same, when a worker comes."""
    sequence = list(_ALL) * 3
    random.Random(1).shuffle(sequence)
    sent = {stage.client.sent("note", **_options(priority))[0]: priority for priority in sequence}
    stage.workers.start(_NO_HOARD, **_ONE)
    stage.wait_for(sent, _RUN)
    started = [sent[id_] for id_ in starts_in_order(stage.ledger.events()) if id_ in sent]
    levels = stage.profile.guarantees.priority_levels
    stage.facts["levels looked for"] = levels = levels if levels > 1 else _LEVELS
    ranks = [_rank(priority, levels) for priority in started]
    shown = ", ".join("none" if priority is None else str(priority) for priority in started[:12])
    stage.require(ranks == sorted(ranks, reverse=True), f"they ran in the order {shown}, …")


@case("an urgent task overtakes what waits, while short tasks flow")
def urgent_in_full_flow(stage: Stage) -> None:
    """A worker may have taken a few ahead, which go first; it overtakes all others."""
    waiting = stage.client.sent("note", 150, 0.03)
    stage.workers.start(**_ONE)
    stage.wait_for(waiting[:30], _RUN, kind="start")
    (urgent,) = stage.client.sent("note", priority=9)
    stage.wait_for([*waiting, urgent], _RUN)
    stage.require_clean()
    started = starts_in_order(stage.ledger.events())
    behind = len(started) - 1 - started.index(urgent)
    (sent_at,) = [event.time for event in stage.ledger.of("sent") if event.id == urgent]
    still_waited = sum(event.time > sent_at for event in stage.ledger.of("start") if event.id != urgent)
    overtaken = stage.facts["overtaken"] = f"{behind} of {still_waited}"
    if still_waited < _FLOW:
        raise TooLate(f"only {still_waited} tasks still waited when the urgent one was sent")
    stage.require(behind >= still_waited - _AHEAD, f"it overtook only {overtaken} tasks that waited")


@case("an urgent task that is tried again stays urgent")
def urgent_retry(stage: Stage) -> None:
    """`retry()` at once: its second run comes before what is not urgent."""
    _stays_urgent(stage, "again", 0)


@case("an urgent message that is given back stays urgent")
def urgent_return(stage: Stage) -> None:
    """`Reject(requeue=True)`: its second run comes before what is not urgent."""
    _stays_urgent(stage, "refuse", 1)


def _stays_urgent(stage: Stage, task: str, argument: int) -> None:
    others = set(stage.client.sent("note", 20, 0.05, priority=0))
    (urgent,) = stage.client.sent(task, 1, argument, priority=9)
    stage.workers.start(_NO_HOARD, **_ONE)
    stage.wait_for([urgent, *others], _RUN)
    stage.require_clean()
    runs = [event.time for event in stage.ledger.of("start") if event.id == urgent]
    stage.require(len(runs) == 2, f"it ran {len(runs)} times, not twice")
    before = sum(event.time < runs[1] and event.id in others for event in stage.ledger.of("start"))
    stage.facts["ran before its second run"] = before
    stage.require(before <= _HELD, f"{before} of {len(others)} tasks of priority 0 ran before its second run")


def _options(priority: int | None) -> dict[str, int]:
    return {} if priority is None else {"priority": priority}


def _rank(priority: int | None, levels: int) -> int:
    """Return the level of a priority, the lowest for none."""
    return (priority or 0) * levels // 10
