"""What the Python binding in the package librabbitmq does not survive, ours does: on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from tests.conftest import ServerOf
from tests.waiting import until

pytest.importorskip(
    "broker_profiles.transports._rabbitmq_c", reason="it is built where there is a C compiler"
)

TRANSPORT = "broker_profiles.transports.librabbitmq:Transport"


@pytest.fixture
def connection(server: ServerOf) -> Iterator[Connection]:
    with Connection(server("rabbitmq").url, transport=TRANSPORT) as connection:
        yield connection


@pytest.fixture
def queue(connection: Connection) -> str:
    """A queue that goes with the connection."""
    name = f"read-in-c-{uuid.uuid4().hex[:8]}"
    connection.default_channel.queue_declare(name, exclusive=True, auto_delete=False)
    return name


def send(connection: Connection, queue: str, body: bytes, **headers: Any) -> None:
    channel = connection.default_channel
    channel.basic_publish(channel.prepare_message(body, headers=headers), exchange="", routing_key=queue)


def take(connection: Connection, enough: Callable[[], object]) -> None:
    """Take what comes, as a loop does, until it is enough."""

    def has() -> object:
        with contextlib.suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0)
        return enough()

    until(has, 30, "enough messages")


def test_consumers_and_channels_that_end_while_messages_arrive(connection: Connection, queue: str) -> None:
    other = f"{queue}-other"
    connection.default_channel.queue_declare(other, exclusive=True, auto_delete=False)
    for number in range(2000):
        send(connection, queue, b"%05d" % number * 50)
        send(connection, other, b"other")
    received: list[bytes] = []
    channel = connection.channel()

    def receive(raw: Any) -> None:
        received.append(bytes(raw.body))
        raw.channel.basic_ack(raw.delivery_tag)
        if len(received) % 100 == 0:
            # As mingle and remote control do; what was on its way to it comes back to its queue.
            passing = connection.channel()
            passing.basic_qos(0, 10, False)
            tag = passing.basic_consume(other, callback=lambda raw: None)
            if len(received) % 200:
                passing.basic_cancel(tag)
            passing.close()

    channel.basic_qos(0, 100, False)
    channel.basic_consume(queue, callback=receive)
    take(connection, lambda: len(received) == 2000)
    assert received == [b"%05d" % number * 50 for number in range(2000)]
    assert connection.default_channel.queue_declare(queue, passive=True).message_count == 0
    assert connection.default_channel.queue_declare(other, passive=True).message_count == 2000


def test_bodies_stay_what_they_were_however_long_they_are(connection: Connection, queue: str) -> None:
    sizes = [0, 1, 131_064, 131_065, 3_000_000, 0, 10]
    held: list[Any] = []
    connection.default_channel.basic_consume(queue, callback=held.append)
    for size in sizes:
        send(connection, queue, b"x" * size, size=size)
    take(connection, lambda: len(held) == len(sizes))
    for _ in range(200):
        send(connection, queue, b"y" * 1000)
    take(connection, lambda: len(held) == len(sizes) + 200)
    assert [raw.body for raw in held[: len(sizes)]] == [b"x" * size for size in sizes]
    assert [raw.headers for raw in held[: len(sizes)]] == [{"size": size} for size in sizes]


def test_what_a_consumer_raises_is_raised_and_the_connection_lives_on(
    connection: Connection, queue: str
) -> None:
    received: list[bytes] = []

    def receive(raw: Any) -> None:
        received.append(raw.body)
        if raw.body == b"bad":
            raise LookupError("mine")

    for body in (b"bad", b"good"):
        send(connection, queue, body)
    connection.default_channel.basic_consume(queue, no_ack=True, callback=receive)
    with pytest.raises(LookupError, match="mine"):
        take(connection, lambda: False)
    take(connection, lambda: len(received) == 2)
    assert received == [b"bad", b"good"]


def test_a_consumer_that_the_server_cancels_is_told(connection: Connection, queue: str) -> None:
    cancelled: list[str] = []
    channel = connection.channel()
    tag = channel.basic_consume(queue, callback=lambda raw: None, on_cancel=cancelled.append)
    connection.default_channel.queue_delete(queue)
    take(connection, lambda: cancelled)
    assert cancelled == [tag]
    assert connection.connected
