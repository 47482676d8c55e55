"""Queues with dead letters on RabbitMQ: what the tests of them send, and what they find."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu import Connection

from broker_profiles.transports import envelope
from broker_profiles.transports.rabbitmq_dead import dead_letter_queue
from broker_profiles.transports.rabbitmq_dead_letters import DeadLetters
from broker_profiles.transports.store import DeadLetter
from tests.waiting import until

LIMIT = 3


def connect(url: str, **more: float) -> Connection:
    options = {"confirm_publish": True, "delivery_limit": LIMIT, **more}
    transport = "broker_profiles.transports.rabbitmq:Transport"
    return Connection(url, transport=transport, transport_options=options)


def declare(channel: Any, name: str) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})


def send(channel: Any, queue: str, **headers: Any) -> None:
    message = channel.prepare_message(b"{}", headers=headers, properties={"delivery_mode": 2})
    channel.basic_publish(message, exchange="", routing_key=queue)


def letters(connection: Connection, queue: str) -> DeadLetters:
    return DeadLetters(connection, [queue], LIMIT)


def task_ids(found: Iterable[DeadLetter]) -> list[str]:
    return [envelope.unpack(letter.body).headers["id"] for letter in found]


def dead(connection: Connection, queue: str, count: int) -> list[Any]:
    """Return the dead letters once there are so many: RabbitMQ moves them a moment later.

    They are counted before they are looked at, for what was looked at comes behind the rest.
    """

    def are_there() -> bool:
        with connection.channel() as counting:
            return bool(counting.queue_declare(dead_letter_queue(queue), passive=True).message_count >= count)

    until(are_there, 20, f"{count} dead letters")
    found: list[Any] = letters(connection, queue).dead_letters()
    assert len(found) == count
    return found
