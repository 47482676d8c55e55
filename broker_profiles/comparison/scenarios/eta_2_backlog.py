"""ETA-2: 100,000 delayed tasks neither delay an immediate one nor grow a worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.utils import uuid
from kombu import Producer

from broker_profiles.comparison.account import lateness
from broker_profiles.comparison.load.sending import copies
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "ETA-2"

#: The bound of the promise, in seconds from the call of `delay()` to the start.
BOUND = 1.0

#: What a worker may grow by, in MiB: connections, caches; 100,000 messages held are hundreds.
GROWTH = 20

#: The promised number, how few of them show nothing, and how long they may take to send, in seconds.
_MANY = 100_000
_TOO_FEW = 1_000
_SENDING = 40.0

#: How many are sent to a server that only imitates a system: its speed says nothing of that system's.
_TO_AN_IMITATION = 1_000

#: How many processes send them: one is busy making messages for most of the time.
_SENDERS = 2

#: The delay of what waits, in seconds. RabbitMQ carries a message through an exchange for each power of two
#: from the longest down to that of its delay: with four years many more can be sent than with an hour.
_YEARS = 135_000_000

#: When an immediate task that has not started counts as held, in seconds.
_HELD = 10.0

#: Some brokers have one place for the delayed tasks of everybody.
_STAYS = "what waits for years would stay there"

#: What the facts call them.
_WAITED = "delayed tasks that waited"


class _Caught(Producer):  # type: ignore[misc]
    """Keeps where Celery would have it publish."""

    exchange_name = routing_key_used = ""

    def publish(self, body: Any, exchange: Any = "", routing_key: str = "", **_: Any) -> None:
        """Keep it."""
        self.exchange_name, self.routing_key_used = getattr(exchange, "name", exchange), routing_key


def flood(app: Any, count: int, seconds: float) -> int:
    """Send so many tasks that are due in years, for so many seconds at most; return how many were sent."""
    task = app.tasks["comparison.note"]
    with app.connection_for_write() as connection:
        # On some brokers a task that is delayed goes elsewhere than others, and Celery knows where.
        caught = _Caught(connection)
        task.apply_async(countdown=_YEARS, producer=caught)
    message = app.amqp.create_task_message(uuid(), task.name, (), {}, countdown=_YEARS, ignore_result=True)
    return copies(app, message, caught.exchange_name, caught.routing_key_used, count, seconds)


@case("an immediate task behind 500 that are delayed for years", quick=True)
def modest(stage: Stage) -> None:
    """Send a backlog to a running worker, then immediate tasks."""
    stage.needs_own_server(_STAYS)
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    stage.facts[_WAITED] = stage.client.call(flood, 500, 20.0, within=40)
    stage.pause(1)  # for a worker that takes them to itself
    _immediate_at_once(stage)


@case(
    "an immediate task behind 100,000 or as many as can be sent in 40 s, and the worker's memory", fresh=True
)
def a_hundred_thousand(stage: Stage) -> None:
    """Send as many as can be sent in the time; a slow server takes fewer, and the facts say how many."""
    stage.needs_own_server(_STAYS)
    worker = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 20), 30)
    before = worker.own_memory()
    sent = stage.facts[_WAITED] = _many(stage)
    if sent < _TOO_FEW:
        stage.not_applicable(f"only {sent:,} delayed tasks could be sent within {_SENDING:g} s")
    stage.pause(3)  # for a worker that takes them to itself
    # First, for a worker that holds them has grown, whether or not it then runs what comes after.
    grown = (worker.own_memory() - before) / 2**20
    stage.facts["worker grown, MiB"] = round(grown, 1)
    _immediate_at_once(stage)
    stage.require(grown <= GROWTH, f"the worker has grown by {grown:.0f} MiB, and {GROWTH} are allowed")


def _many(stage: Stage) -> int:
    many = _TO_AN_IMITATION if stage.server.imitation else _MANY
    senders = [stage.another_client() for _ in range(_SENDERS)]
    with ThreadPoolExecutor(_SENDERS) as together:
        calls = [
            together.submit(sender.call, flood, many // _SENDERS, _SENDING, within=_SENDING + 30)
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
    stage.require_clean()  # none of those that wait has run
    stage.in_time("seconds to the start of an immediate task, at most", max(late.values()), BOUND)
