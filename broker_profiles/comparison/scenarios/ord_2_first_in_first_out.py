"""ORD-2: first in, first out within a priority, for one consumer."""

from __future__ import annotations

from broker_profiles.comparison.account import out_of_order, starts_in_order
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ORD-2"

_COUNT = 200


@case("200 tasks wait for one consumer", quick=True)
def waiting_tasks(stage: Stage) -> None:
    """Send all before the consumer is there."""
    sent = stage.client.sent("note", _COUNT)
    stage.workers.start(concurrency=1)
    stage.wait_for(sent, 60)
    _in_order(stage, sent)


@case("tasks come while the consumer works")
def tasks_on_the_way(stage: Stage) -> None:
    """Send one after the other to a consumer that is a little slower than they come."""
    stage.workers.start(concurrency=1)
    sent = stage.client.sent("note", _COUNT, 0.01, every=0.005)
    stage.wait_for(sent, 60)
    _in_order(stage, sent)


@case("the consumer is stopped in the middle and another goes on")
def over_a_restart(stage: Stage) -> None:
    """What a worker had fetched and gives back comes before what was sent after it."""
    first = stage.workers.start(concurrency=1)
    sent = stage.client.sent("note", _COUNT, 0.02)
    stage.wait_for(sent[:20], 30)
    stage.fault("worker SIGTERM")
    first.terminate()
    stage.require(first.wait(30) is not None, "the worker did not end within 30 s of SIGTERM")
    stage.workers.start(concurrency=1)
    stage.wait_for(sent, 60)
    _in_order(stage, sent)


def _in_order(stage: Stage, sent: list[str]) -> None:
    wrong = out_of_order(sent, starts_in_order(stage.ledger.events()))
    shown = ", ".join(str(sent.index(id_)) for id_ in wrong[:5])
    stage.require(not wrong, f"{len(wrong)} of {len(sent)} tasks ran before an earlier one: numbers {shown}")
    stage.require_clean()
