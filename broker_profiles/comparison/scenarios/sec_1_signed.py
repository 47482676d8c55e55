"""SEC-1: where messages are signed, what nobody trusted has signed is not run."""

from __future__ import annotations

import uuid
from typing import Any

from celery import Celery

from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.scenarios.del_8_unreadable_messages import publish
from broker_profiles.comparison.signers import Signer
from broker_profiles.comparison.stage import Stage
from broker_profiles.profile import Mode

GUARANTEE = "SEC-1"

#: Seconds within which a task runs, and within which what is refused is set aside.
_RUNS, _SET_ASIDE = 30.0, 15.0


def publish_shutdown(app: Celery) -> None:
    """In the client: tell every worker to end, by a command of remote control that nobody has signed."""
    exchange = app.control.mailbox.exchange
    with app.producer_or_acquire() as producer:
        command: dict[str, Any] = {"method": "shutdown", "arguments": {}, "destination": None}
        producer.publish(command, serializer="json", exchange=exchange, declare=[exchange])


@case("signed messages run, and others are set aside", quick=True)
def signed(stage: Stage) -> None:
    """Send tasks with a signature that is trusted, with one that is not, and without; commands likewise."""
    if stage.profile.mode is Mode.STOCK:
        stage.not_applicable("Celery signs messages where the application's own code says so")
    # What ends a worker that takes any message has to be harmless to one that takes signed ones.
    plain, plainly = stage.workers.start(), stage.another_client()
    plainly.call(publish_shutdown)
    stage.wait(lambda: not plain.alive, _RUNS, "a worker that verifies nothing obeys")

    trusted = stage.folder / "trusted"
    ours, theirs = (Signer(stage.folder, name) for name in ("ours", "theirs"))
    ours.trusted_in(trusted)
    stage.configure(**ours.variables(trusted))
    worker = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 3), _RUNS)

    unsigned = str(uuid.uuid4())
    plainly.call(publish, [{"id": unsigned}])
    plainly.call(publish_shutdown)
    stranger = stage.another_client(theirs.variables(trusted))
    (signed_by_a_stranger,) = stranger.sent("note", 1)
    stage.wait_for(stage.client.sent("note", 3), _RUNS)

    for id_, what in ((unsigned, "an unsigned message"), (signed_by_a_stranger, "a stranger's message")):
        stage.wait_for_value(
            lambda id_=id_: id_ in stage.ledger.ids("start") or _is_dead(stage, id_),  # type: ignore[misc]
            _SET_ASIDE,
            f"{what} has neither run nor been set aside",
        )
        stage.require(id_ not in stage.ledger.ids("start"), f"{what} was run")
    stage.require(worker.alive, "the worker ended: it obeys a command that nobody has signed")
    stage.require(stage.client.control("ping"), "the worker does not answer a ping that is signed")


def _is_dead(stage: Stage, id_: str) -> bool:
    return stage.dead_letter(id_) is not None
