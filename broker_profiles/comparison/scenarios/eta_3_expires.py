"""ETA-3: `expires` is honoured in the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from broker_profiles.comparison.client import ClientError
from broker_profiles.comparison.clock import other_clock
from broker_profiles.comparison.scenario import PromiseBroken, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ETA-3"

#: When a task expires that is to expire before it can run, and one that is not, in seconds.
_SOON, _LATER = 1.5, 600.0

_HOUR = 3600


def send_expiring(app: Any, seconds: float) -> str:
    """Send a task that expires at a time, so many seconds from now; return its id."""
    from broker_profiles.comparison.clientside import send_one  # only a client has an application

    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    id_, _, error = send_one(app, "note", [], {}, {"expires": expires})
    if error is not None:
        raise RuntimeError(error)
    return str(id_)


def take(app: Any) -> str | None:
    """Take one message from the queue and return the id of its task, none where there is no message."""
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue].bind(connection.default_channel)
        message = queue.get(no_ack=True)
        return None if message is None else str(message.headers["id"])


@case("tasks that expire while no worker runs", quick=True)
def without_a_worker(stage: Stage) -> None:
    """Send what expires and what does not, by seconds and by time; the worker comes later."""
    expired = [*stage.client.sent("note", 3, expires=_SOON), _expiring(stage, _SOON)]
    kept = [*stage.client.sent("note", 2, expires=_LATER), _expiring(stage, _LATER)]
    kept += stage.client.sent("note")
    stage.pause(_SOON)
    stage.workers.start()
    _only(stage, kept, expired)


@case("the queue is asked for a task that has expired, as somebody who is no worker of Celery's asks")
def asked_for(stage: Stage) -> None:
    """Celery's worker drops what has expired by its own clock; here the queue alone can."""
    expired = stage.client.sent("note", 3, expires=_SOON)
    (kept,) = stage.client.sent("note", expires=_LATER)
    stage.pause(_SOON + 1)
    handed_out = stage.client.call(take)
    stage.require(handed_out not in expired, "the queue hands out a task that has expired")
    stage.require(handed_out == kept, "the queue does not hand out a task that has not expired")
    stage.ledger.withdrawn([*expired, kept], "expired, or taken by nobody's worker")


@case("delayed tasks that expire before or after they are due")
def delayed(stage: Stage) -> None:
    """Send tasks with an eta and an expiry to a running worker."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note"), 20)
    expired = stage.client.sent("note", 3, countdown=4, expires=_SOON)
    kept = stage.client.sent("note", 3, countdown=2.5, expires=_LATER)
    kept += stage.client.sent("note", 1, countdown=5)
    _only(stage, kept, expired)


@case("tasks that expire behind a long one")
def behind_a_long_task(stage: Stage) -> None:
    """Let a worker with one process be busy until they have expired; it may have fetched some already."""
    stage.workers.start(concurrency=1)
    busy = stage.client.sent("note", 1, 4.0)
    stage.wait_for(busy, 20, kind="start")
    expired = stage.client.sent("note", 6, expires=_SOON)
    _only(stage, [*busy, *stage.client.sent("note", 2, expires=_LATER)], expired)


@case("tasks that have expired, and a worker whose clock is an hour behind")
def clock_behind(stage: Stage) -> None:
    """What has expired does not run because one machine's clock is wrong: the queue knows the time."""
    before, environ = other_clock(stage.profile, -_HOUR, stage.folder)
    expired = stage.client.sent("note", 3, expires=_SOON)
    kept = stage.client.sent("note", 2, expires=_LATER)
    stage.pause(_SOON)
    stage.workers.start(before=before, environ=environ)
    _only(stage, kept, expired)


def _expiring(stage: Stage, seconds: float) -> str:
    try:
        return str(stage.client.call(send_expiring, seconds))
    except ClientError as error:
        raise PromiseBroken(f"a task that expires was refused: {error}") from None


def _only(stage: Stage, kept: list[str], expired: list[str]) -> None:
    """Require that these run, and those do not, though a task sent after them has run."""
    stage.wait_for(kept, 30)
    stage.wait_for(stage.client.sent("note"), 20)
    stage.pause(1)
    late = stage.ledger.ids("start") & set(expired)
    stage.require(not late, f"{len(late)} of {len(expired)} tasks ran though they had expired")
    stage.ledger.withdrawn(expired, "expired")
    stage.require_clean()
