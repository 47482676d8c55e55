"""ORD-2: first in, first out within a priority, for one consumer."""

from __future__ import annotations

from collections.abc import Sequence

from broker_profiles.comparison.account import out_of_order, starts_in_order
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ORD-2"

_TASKS = 200

#: Seconds within which all have run.
_RUN = 60.0

#: Seconds after which a worker is killed that was told to end.
_ENDS = 60.0


@case("200 tasks, one process", quick=True)
def one_process(stage: Stage) -> None:
    """Half of them wait when the worker comes, half are sent while it works."""
    ids = stage.client.sent("note", _TASKS // 2)
    stage.workers.start(concurrency=1)
    ids += stage.client.sent("note", _TASKS // 2)
    stage.wait_for(ids, _RUN)
    stage.require_clean()
    _ran_in_order(stage, ids)


@case("three priorities mixed: each in its own order")
def within_priorities(stage: Stage) -> None:
    """Which of the priorities goes first is another promise; here each is looked at alone."""
    ids: dict[int | None, list[str]] = {None: [], 5: [], 9: []}
    for _ in range(_TASKS // len(ids)):
        for priority, sent in ids.items():
            sent += stage.client.sent("note", **({} if priority is None else {"priority": priority}))
    stage.workers.start(concurrency=1)
    for sent in ids.values():
        stage.wait_for(sent, _RUN)
    stage.require_clean()
    for sent in ids.values():
        _ran_in_order(stage, sent)


@case("200 tasks, and the worker is replaced in the middle")
def restarted(stage: Stage) -> None:
    """What the first worker held and had not begun goes back to its place, before what came later.

    Whether it ends, and whether one that had run runs again, are other promises.
    """
    worker = stage.workers.start(concurrency=1)
    ids = stage.client.sent("note", _TASKS, 0.01)
    stage.wait_for(ids[: _TASKS // 4], _RUN, kind="start")
    stage.fault("worker SIGTERM")
    worker.terminate()
    if worker.wait(_ENDS) is None:
        worker.kill()
    stage.workers.start(concurrency=1)
    stage.wait_for(ids, _RUN)
    _ran_in_order(stage, ids)


def _ran_in_order(stage: Stage, ids: Sequence[str]) -> None:
    early = out_of_order(ids, starts_in_order(stage.ledger.events()))
    stage.require(not early, f"{len(early)} of {len(ids)} tasks ran before one that was sent earlier")
