"""Dead letters on RabbitMQ: nothing is lost by a replay, however it ends, and every replay ends."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection

from broker_profiles.errors import QueueDiffers, Unroutable
from broker_profiles.transports.rabbitmq_dead import dead_letter_queue
from tests.acceptance.dead_letters import connect, dead, declare, letters, send
from tests.conftest import ServerOf


def reject_all(channel: Any, queue: str) -> int:
    """Reject what is ready, for good; return how many that was."""
    count = 0
    while (message := channel.basic_get(queue)) is not None:
        channel.basic_reject(message.delivery_tag, requeue=False)
        count += 1
    return count


@contextlib.contextmanager
def rejecting(url: str, queue: str) -> Iterator[None]:
    """Reject every message of a queue, as it comes, in a thread."""
    ended = threading.Event()

    def run() -> None:
        with connect(url) as connection:
            channel = connection.default_channel
            channel.basic_consume(
                queue, callback=lambda message: channel.basic_reject(message.delivery_tag, requeue=False)
            )
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


@pytest.mark.parametrize("headers", [{"id": "one", "task": "t"}, {}], ids=["a task", "what is no task"])
def test_a_replay_without_its_queue_is_an_error_and_loses_nothing(
    connection: Connection, queue: str, headers: dict[str, str]
) -> None:
    channel = connection.default_channel
    send(channel, queue, **headers)
    assert reject_all(channel, queue) == 1
    (letter,) = dead(connection, queue, 1)
    channel.queue_delete(queue)
    with pytest.raises(Unroutable):
        letters(connection, queue).replay([letter.id])
    assert [again.id for again in dead(connection, queue, 1)] == [letter.id]


def test_a_replay_ends_though_each_message_comes_back_at_once(
    connection: Connection, queue: str, server: ServerOf
) -> None:
    channel = connection.default_channel
    for number in range(3):
        send(channel, queue, id=str(number), task="t")
    assert reject_all(channel, queue) == 3
    ids = [letter.id for letter in dead(connection, queue, 3)]
    with rejecting(server("rabbitmq").url, queue):
        assert letters(connection, queue).replay(ids) == 3
        assert {letter.id for letter in dead(connection, queue, 3)} == set(ids)


def test_what_is_not_asked_for_stays(connection: Connection, queue: str) -> None:
    channel = connection.default_channel
    for number in range(3):
        send(channel, queue, id=str(number), task="t")
    reject_all(channel, queue)
    first, second, third = (letter.id for letter in dead(connection, queue, 3))
    assert letters(connection, queue).discard([second, "nobody/knows"]) == 1
    assert [letter.id for letter in dead(connection, queue, 2)] == [first, third]


def test_what_was_looked_at_is_there_for_whoever_looks_next(connection: Connection, queue: str) -> None:
    channel = connection.default_channel
    for number in range(20):
        send(channel, dead_letter_queue(queue), id=str(number), task="t")
        ids = [letter.id for letter in dead(connection, queue, 1)]
        assert letters(connection, queue).discard(["nobody/knows"]) == 0
        assert letters(connection, queue).discard(ids) == 1


def test_a_queue_with_other_arguments_is_one_clear_error(connection: Connection) -> None:
    name = f"other-{uuid.uuid4().hex[:8]}"
    channel = connection.channel()
    channel.queue_declare(name, durable=True, auto_delete=False, arguments={})
    try:
        with pytest.raises(QueueDiffers, match=f"{name}.*rabbitmqctl delete_queue"):
            declare(channel, name)
    finally:
        with connection.channel() as cleaning:
            cleaning.queue_delete(name)
            cleaning.queue_delete(dead_letter_queue(name))
