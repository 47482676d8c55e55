"""Messages that RabbitMQ's consumers cannot read: each is a dead letter with its reason, and none is lost."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from kombu import Connection, Consumer, Message, Queue
from kombu.exceptions import DecodeError

from broker_profiles.transports.rabbitmq_dead import dead_letter_queue
from tests.acceptance.dead_letters import connect, dead, letters, send, task_ids
from tests.conftest import ServerOf
from tests.waiting import until

QUORUM = {"x-queue-type": "quorum"}


def send_unreadable(connection: Connection, queue: str, *ids: str, **properties: Any) -> None:
    """Send messages of bodies that end too early."""
    for id_ in ids:
        message = connection.default_channel.prepare_message(
            "{", 0, "application/json", "utf-8", {"id": id_, "task": "t"}, {"delivery_mode": 2, **properties}
        )
        connection.default_channel.basic_publish(message, exchange="", routing_key=queue)


def receive(message: Message) -> None:
    """Do what Celery's consumer does with a message that it can, or cannot, decode."""
    with contextlib.suppress(DecodeError):
        message.decode()
    message.ack()


@contextlib.contextmanager
def consuming(
    url: str, queue: str, prefetch: int, on_message: Callable[[Message], None] = receive
) -> Iterator[Connection]:
    """Consume, within the block, whenever the connection that this gives is asked for events."""
    with connect(url) as connection:
        entity = Queue(queue, exchange="", durable=True, queue_arguments=QUORUM)
        consumer = Consumer(connection, [entity], on_message=on_message, accept=["json"])
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()
        yield connection


def drain(connection: Connection, enough: Callable[[], Any]) -> None:
    def has() -> Any:
        # All that has come, for what waits asks no more than fifty times a second.
        with contextlib.suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0.1)
        return enough()

    until(has, 20, "enough messages")


def count(connection: Connection, queue: str) -> int:
    """Return how many messages of a queue are ready."""
    ready: int = connection.default_channel.queue_declare(queue, passive=True).message_count
    return ready


def test_many_at_once_between_good_ones(connection: Connection, queue: str, server: ServerOf) -> None:
    ids = [str(number) for number in range(200)]
    good: list[str] = []

    def on_message(message: Message) -> None:
        if message.body == "[[], {}, {}]":
            good.append(message.headers["id"])
        receive(message)

    for id_ in ids:
        send_unreadable(connection, queue, id_)
        if int(id_) % 20 == 0:
            message = connection.default_channel.prepare_message(
                "[[], {}, {}]", 0, "application/json", "utf-8", {"id": f"good {id_}", "task": "t"}
            )
            connection.default_channel.basic_publish(message, exchange="", routing_key=queue)
    with consuming(server("rabbitmq").url, queue, 100, on_message) as consumer:
        drain(consumer, lambda: len(good) == 10 and count(connection, dead_letter_queue(queue)) == 200)
    found = dead(connection, queue, 100)  # of the list's first page
    assert {(letter.reason, letter.detail[:11]) for letter in found} == {("cannot decode", "DecodeError")}
    assert count(connection, queue) == 0


def test_headers_that_are_nested_too_deep(connection: Connection, queue: str, server: ServerOf) -> None:
    table = b""
    for _ in range(2000):
        table = b"\0F" + struct.pack(">I", len(table)) + table
    message = connection.default_channel.prepare_message(b"[[], {}, {}]")
    # py-amqp could not write them either.
    message._serialize_properties = lambda: struct.pack(">HI", 0x2000, len(table)) + table
    connection.default_channel.basic_publish(message, exchange="", routing_key=queue)
    with consuming(server("rabbitmq").url, queue, 1) as consumer:
        drain(consumer, lambda: count(connection, dead_letter_queue(queue)) == 1)
    (letter,) = dead(connection, queue, 1)
    assert (letter.reason, letter.detail[:15]) == ("cannot decode", "RecursionError:")
    assert count(connection, queue) == 0


def test_a_dead_letter_can_be_sent_again(connection: Connection, queue: str, server: ServerOf) -> None:
    send_unreadable(connection, queue, "one", expiration="60000")
    with consuming(server("rabbitmq").url, queue, 1) as consumer:
        drain(consumer, lambda: count(connection, dead_letter_queue(queue)) == 1)
        (letter,) = dead(connection, queue, 1)
        assert letter.died_at > 0
        assert letters(connection, queue).replay([letter.id]) == 1
        drain(consumer, lambda: count(connection, dead_letter_queue(queue)) == 1)
    again = dead(connection, queue, 1)
    assert task_ids(again) == ["one"]
    assert again[0].id != letter.id


def test_it_is_not_lost_when_its_consumer_ends_before_the_confirm(
    connection: Connection, queue: str, server: ServerOf
) -> None:
    send_unreadable(connection, queue, "one")
    read: list[Message] = []

    def on_message(message: Message) -> None:
        receive(message)
        read.append(message)

    with consuming(server("rabbitmq").url, queue, 1, on_message) as consumer:
        while not read:
            consumer.drain_events(timeout=10)
        consumer.connection.collect()  # as a killed process does
    with consuming(server("rabbitmq").url, queue, 1) as consumer:
        drain(consumer, lambda: count(connection, dead_letter_queue(queue)) >= 1)
    assert set(task_ids(letters(connection, queue).dead_letters())) == {"one"}


def test_a_message_that_is_no_task_is_read_by_whoever_consumes_it(
    connection: Connection, queue: str, server: ServerOf
) -> None:
    read: list[Any] = []

    def on_message(message: Message) -> None:
        read.append(message.decode())
        message.ack()

    send(connection.default_channel, queue, hello="world")
    with consuming(server("rabbitmq").url, queue, 1, on_message) as consumer:
        drain(consumer, lambda: read)
    assert count(connection, dead_letter_queue(queue)) == 0
