"""DEL-8: what can be read and yet not be run as it is, is not lost either."""

from __future__ import annotations

import uuid

from celery import Celery

from broker_profiles.comparison.client import ClientError
from broker_profiles.comparison.ledger import recorder
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.errors import redact

GUARANTEE = "DEL-8"

#: Seconds within which what comes after it runs, and within which its failure can be read.
_GOOD, _BAD = 30.0, 10.0

_MEGABYTES = 100


@case("a call with wrong arguments fails where its sender can see it")
def arguments(stage: Stage) -> None:
    """It can be read, and Celery runs it: what must not happen is nothing."""
    worker = stage.workers.start(concurrency=1)
    id_ = stage.client.call(send_wrongly)
    stage.wait_for(stage.client.sent("note", 3), _GOOD)
    stage.require(worker.alive, "the worker ended")
    try:
        state, _ = stage.client.result(id_, _BAD)
    except ClientError as error:
        if error.kind == NotImplementedError.__name__:
            stage.not_applicable("no results are kept here")
        raise
    failed = state == "FAILURE" or stage.dead_letter(id_)
    stage.require(failed, f"its state is {state}, and it is no dead letter")


@case("a message of 100 MB")
def large(stage: Stage) -> None:
    """Refused to the sender, or run, or set aside; but the worker lives and runs what comes after it."""
    worker = stage.workers.start(concurrency=1)
    id_, error = stage.client.call(send_large, _MEGABYTES, within=60)
    stage.facts["100 MB"] = error or "taken"
    # What was too large may cost the sender its connection, and the next task with it.
    good = [answer.id for answer in stage.client.send("note", 5) if answer.error is None]
    stage.require(good, "its sender could not send anything after it")
    stage.wait_for(good, _GOOD)
    stage.require(worker.alive, "the worker ended")

    def ran_or_died() -> bool:
        return id_ in stage.ledger.ids("finish") or stage.dead_letter(id_) is not None

    if error is None:
        stage.wait_for_value(ran_or_died, _GOOD, "it neither ran nor became a dead letter")


def send_wrongly(app: Celery) -> str:
    """In the client: send a task by its name alone, with too few arguments; return its id."""
    id_ = str(uuid.uuid4())
    recorder().record("sending", id_, "too few arguments")
    app.send_task("comparison.add", [1], task_id=id_)
    return id_


def send_large(app: Celery, megabytes: int) -> list[str | None]:
    """In the client: send one large task; return its id, and the error where it was refused."""
    id_, ledger = str(uuid.uuid4()), recorder()
    ledger.record("sending", id_, f"{megabytes} MB")
    try:
        app.tasks["comparison.note"].apply_async((0.0, "x" * (megabytes * 1_000_000)), task_id=id_)
    except Exception as error:  # each client library has errors of its own
        return [id_, ledger.record("refused", id_, f"{type(error).__name__}: {redact(error)}"[:200]).text]
    ledger.record("sent", id_)
    return [id_, None]
