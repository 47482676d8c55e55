"""ORD-1: priority 9 runs before 0, and no priority is the lowest."""

from __future__ import annotations

from broker_profiles.comparison.account import out_of_order, starts_in_order
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ORD-1"

#: Seconds in which the backlog is sent, while the only consumer is busy.
_BUSY = 6.0

#: As they are sent: interleaved, so that neither the order of sending nor its reverse is right.
_PRIORITIES = (3, 9, 0, 6, 1, 8, 4, 2, 7, 5)


@case("tasks of every priority wait for one consumer", quick=True)
def every_level(stage: Stage) -> None:
    """Send every priority twice while the consumer is busy: the most urgent has to run first.

    A broker of two levels is to put 5 to 9 before 0 to 4, in the order of sending among themselves.
    """
    levels = stage.profile.guarantees.priority_levels
    levels = levels if levels > 1 else len(_PRIORITIES)
    _hold(stage)
    waiting = [(priority, _send(stage, priority)) for priority in _PRIORITIES * 2]
    by_level = sorted(waiting, key=lambda pair: -(pair[0] * levels // len(_PRIORITIES)))
    _in_order(stage, [id_ for _, id_ in by_level])


@case("no priority is the lowest", quick=True)
def none_is_lowest(stage: Stage) -> None:
    """Send tasks without a priority between urgent ones: they run last, as those of priority 0 do."""
    _hold(stage)
    plain = [_send(stage, None)]
    urgent = [_send(stage, 9)]
    plain.append(_send(stage, None))
    urgent.append(_send(stage, 5))
    plain.append(_send(stage, 0))
    _in_order(stage, [*urgent, *plain])


@case("an urgent task overtakes a long backlog")
def overtakes(stage: Stage) -> None:
    """Send one urgent task behind 200: it starts before all of them but what is already fetched."""
    _hold(stage)
    backlog = stage.client.sent("note", 200, priority=0)
    urgent = _send(stage, 9)
    stage.wait_for([*backlog, urgent], 60)
    order = starts_in_order(stage.ledger.events())
    ahead = order.index(urgent) - 1  # the one that kept the consumer busy
    stage.facts["tasks that ran before the urgent one"] = ahead
    stage.require(ahead <= 4, f"{ahead} of 200 tasks of priority 0 ran before one of priority 9")
    stage.require_clean()


def _hold(stage: Stage) -> None:
    """Keep the only consumer busy with a task, so that what comes now has to wait in the broker."""
    stage.workers.start("--prefetch-multiplier=1", concurrency=1)
    (busy,) = stage.client.sent("note", 1, _BUSY, priority=9)
    stage.wait_for([busy], 20, kind="start")


def _send(stage: Stage, priority: int | None) -> str:
    options = {} if priority is None else {"priority": priority}
    (id_,) = stage.client.sent("note", 1, **options)
    return id_


def _in_order(stage: Stage, wanted: list[str]) -> None:
    # One message may be in the worker's hands already: the first that came is not compared.
    stage.wait_for(wanted, 60)
    first_sent = stage.ledger.of("sent")[1].id
    compared = [id_ for id_ in wanted if id_ != first_sent]
    wrong = out_of_order(compared, starts_in_order(stage.ledger.events()))
    order = [wanted.index(id_) for id_ in starts_in_order(stage.ledger.events()) if id_ in wanted]
    stage.facts["ranks in the order of their starts"] = order
    stage.require(not wrong, f"{len(wrong)} of {len(compared)} tasks ran before one that is more urgent")
    stage.require_clean()
