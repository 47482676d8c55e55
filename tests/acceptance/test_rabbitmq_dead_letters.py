"""Dead letters on RabbitMQ: nothing is lost by a replay, however it ends, and every replay ends."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from kombu import Connection

from broker_profiles.errors import QueueDiffers, Unroutable
from broker_profiles.transports import rabbitmq_new_queues
from broker_profiles.transports.rabbitmq_dead import dead_letter_queue
from tests.acceptance.dead_letters import connect, dead, declare, letters, send, task_ids
from tests.conftest import ServerOf
from tests.dying import dies
from tests.waiting import until

#: The functions that a replay is made of; those around them look, and wait for what was looked at.
_STEPS = frozenset(["_each", "_publish_again", "basic_publish_confirm", "remove"])


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
    ids = {letter.id for letter in dead(connection, queue, 3)}
    with rejecting(server("rabbitmq").url, queue):
        assert letters(connection, queue).replay(list(ids)) == 3
        again = dead(connection, queue, 3)
    assert sorted(task_ids(again)) == ["0", "1", "2"]
    # What has been replayed is another death, should it die within the same second too.
    assert not ids & {letter.id for letter in again}


def test_ids_of_any_kind_are_told_apart(connection: Connection, queue: str) -> None:
    channel = connection.default_channel
    own = ["a/b", "a\nb", "\u00e9\U0001f600", "x" * 5000, "'; --", "twice", "twice", 7, ["list"], None]
    for id_ in own:
        send(channel, queue, id=id_, task="t", at=datetime(2026, 1, 1), raw=b"\xff")
    reject_all(channel, queue)
    found = dead(connection, queue, len(own))
    assert task_ids(found) == own
    ids = [letter.id for letter in found]
    assert len(set(ids)) == len(own)
    assert all(id_.replace("-", "").isalnum() for id_ in ids)
    looked_up = letters(connection, queue).find_dead_letters([ids[0], ids[6], "nobody knows"])
    assert [letter.id for letter in looked_up] == [ids[0], ids[6]]
    assert letters(connection, queue).discard(ids[5:6]) == 1
    assert task_ids(dead(connection, queue, len(own) - 1)) == [*own[:5], *own[6:]]


def test_a_look_that_ends_early_gives_all_back(connection: Connection, queue: str) -> None:
    channel = connection.default_channel
    for number in range(5):
        send(channel, queue, id=str(number), task="t")
    reject_all(channel, queue)
    assert task_ids(dead(connection, queue, 5)) == ["0", "1", "2", "3", "4"]
    assert task_ids(letters(connection, queue).dead_letters(limit=2)) == ["0", "1"]
    with closing(letters(connection, queue).each_dead_letter()) as looked:
        next(looked)
    # RabbitMQ puts what was given back behind what was not looked at.
    assert task_ids(dead(connection, queue, 5)) == ["3", "4", "0", "1", "2"]


@pytest.mark.slow  # as many processes as there are lines
def test_whoever_dies_replaying_loses_none(connection: Connection, queue: str, server: ServerOf) -> None:
    channel = connection.default_channel
    for lines in range(1_000):
        for id_ in ("one", "two"):
            send(channel, queue, id=id_, task="t")
        until(partial(reject_all, channel, queue), 10, "the messages are there")
        found = dead(connection, queue, 2)
        wanted = [letter.id for letter in found if task_ids([letter]) == ["one"]]
        died = dies(partial(_replaying, server("rabbitmq").url, queue, wanted), lines, _STEPS)
        replayed: list[str] = []

        def are_there(replayed: list[str] = replayed) -> bool:
            replayed += taken(channel, queue)
            return {*replayed, *task_ids(letters(connection, queue).dead_letters())} == {"one", "two"}

        # RabbitMQ puts back what the dead held. Between its confirm and the end of the letter it is both.
        until(are_there, 10, f"all are there of one who died after {lines} lines")
        assert set(replayed) <= {"one"}
        if not died:
            assert replayed == ["one"]
            assert task_ids(dead(connection, queue, 1)) == ["two"]
            return
        channel.queue_purge(dead_letter_queue(queue))
        channel.queue_purge(queue)
    pytest.fail("it never ended")


def _replaying(url: str, queue: str, ids: list[int | str]) -> Callable[[], object]:
    own = connect(url)
    own.connect()
    return partial(letters(own, queue).replay, ids)


def taken(channel: Any, queue: str) -> list[str]:
    """Take all that a queue holds; return the ids."""
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(channel.message_to_python(message).headers["id"])
    return found


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


@contextlib.contextmanager
def queue_of(connection: Connection) -> Iterator[str]:
    name = f"kept-{uuid.uuid4().hex[:8]}"
    declare(connection.default_channel, name)
    try:
        yield name
    finally:
        with connection.channel() as cleaning:
            cleaning.queue_delete(name)
            cleaning.queue_delete(dead_letter_queue(name))


def test_a_new_queue_keeps_so_many_dead_letters_and_the_youngest(server: ServerOf) -> None:
    with connect(server("rabbitmq").url, dead_letter_limit=2) as connection, queue_of(connection) as queue:
        for number in range(4):
            send(connection.default_channel, queue, id=str(number), task="t")
            until(partial(reject_all, connection.default_channel, queue), 10, "it is there")
        until(lambda: task_ids(letters(connection, queue).dead_letters()) == ["2", "3"], 20, "the last two")


def test_a_new_queue_keeps_dead_letters_for_a_time(server: ServerOf) -> None:
    with (
        connect(server("rabbitmq").url, dead_letter_seconds=0.5) as connection,
        queue_of(connection) as queue,
    ):
        send(connection.default_channel, dead_letter_queue(queue), id="brief", task="t")
        until(lambda: not letters(connection, queue).dead_letters(), 20, "it is gone")


def test_dead_letters_that_are_there_stay_as_they_were_declared(
    connection: Connection, server: ServerOf
) -> None:
    name = f"old-{uuid.uuid4().hex[:8]}"
    channel, dead_ones = connection.default_channel, dead_letter_queue(name)
    # As it was declared before there was a limit.
    channel.queue_declare(dead_ones, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
    try:
        for limit in (1, 2):
            with connect(server("rabbitmq").url, dead_letter_limit=limit) as other:
                declare(other.default_channel, name)
        for number in range(3):
            send(channel, dead_ones, id=str(number), task="t")
        assert task_ids(dead(connection, name, 3)) == ["0", "1", "2"]
    finally:
        with connection.channel() as cleaning:
            cleaning.queue_delete(name)
            cleaning.queue_delete(dead_ones)


def test_of_two_that_declare_dead_letters_at_once_the_first_has_its_way(
    server: ServerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server("rabbitmq").url
    with connect(url, dead_letter_limit=2) as connection, queue_of(connection) as queue:
        # As another found it that looked at the same moment.
        monkeypatch.setattr(rabbitmq_new_queues, "_is_there", lambda channel, queue: False)
        with connect(url, dead_letter_limit=1) as other:
            declare(other.default_channel, queue)
            for number in range(2):
                send(other.default_channel, dead_letter_queue(queue), id=str(number), task="t")
            assert task_ids(dead(other, queue, 2)) == ["0", "1"]
