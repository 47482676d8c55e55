"""RES-1: a result can be read from another process, and after a restart."""

from __future__ import annotations

from typing import Any

from broker_profiles.comparison.client import Client
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "RES-1"

#: How long a reader waits for a result that is there, in seconds.
_WITHIN = 8.0

_FIVE = ("SUCCESS", 5)


@case("two other processes read it, after the worker has ended", quick=True)
def other_readers(stage: Stage) -> None:
    """Send from one process, end the worker, read from two others and from the first."""
    worker = stage.workers.start()
    (id_,) = stage.client.sent("add", 1, 2, 3)
    (failed,) = stage.client.sent("fail")
    stage.wait_for([id_, failed], 20)
    _read(stage.client, stage, id_)
    worker.terminate()
    stage.wait(lambda: worker.wait(0) is not None, 20, "the worker has ended")
    for reader in (stage.another_client(), stage.another_client(), stage.client):
        _read(reader, stage, id_)
    found = stage.another_client().result(failed, _WITHIN)
    stage.require(found == ("FAILURE", "on purpose"), f"a failure was read as {found}")


@case("it is read after the result store was killed and started again")
def after_a_restart(stage: Stage) -> None:
    """Kill the store once results are there; read them in a new process and in one from before."""
    stage.workers.start()
    ids = stage.client.sent("add", 10, 2, 3)
    stage.wait_for(ids, 20)
    for id_ in ids:
        _read(stage.client, stage, id_)  # a task's last line comes before its result
    reader = stage.another_client()
    _read(reader, stage, ids[0])
    stage.results.kill()
    stage.results.start()
    for id_ in ids:
        _read(reader, stage, id_)
    _read(stage.another_client(), stage, ids[-1])


def _read(reader: Client, stage: Stage, id_: str) -> None:
    found: tuple[str, Any] = reader.result(id_, _WITHIN)
    stage.require(found == _FIVE, f"a result of 5 was read as {found[0]} {found[1]}")
