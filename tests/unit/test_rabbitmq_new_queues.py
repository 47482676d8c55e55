"""A new quorum queue is written down before its declaration returns; an old one costs one look."""

from __future__ import annotations

from typing import Any

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from kombu.transport import pyamqp

from broker_profiles.errors import QueueDiffers
from broker_profiles.transports.rabbitmq import Channel

QUORUM = {"x-queue-type": "quorum"}


class Connection:
    """A connection to a broker that has some queues; it keeps what is asked on all its channels."""

    def __init__(self, there: set[str], delivery_limit: int = 5) -> None:
        self.there = there
        self.delivery_limit = delivery_limit
        self.server_properties = {"version": "4.0.5"}
        self.with_dead_letters: set[str] = set()
        self.retention = 60.0, 2
        self.aside = None
        self.asked: list[str] = []
        #: The queue that is there with other arguments.
        self.refused = "other"

    def channel(self) -> Channel:
        channel = Channel.__new__(Channel)
        channel.is_open = True
        channel.connection = self
        return channel


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def declare(channel: Channel, queue: str, passive: bool = False, *options: Any, **_: Any) -> None:
        known = "passing" if len(queue.rpartition(".")[2]) == 32 else queue
        channel.connection.asked.append(f"{'look for' if passive else 'declare'} {known}")
        if passive and queue not in channel.connection.there:
            raise NotFound
        if queue == channel.connection.refused:
            channel.is_open = False
            raise PreconditionFailed

    def delete(channel: Channel, queue: str) -> None:
        channel.connection.asked.append("delete passing")

    monkeypatch.setattr(pyamqp.Channel, "queue_declare", declare)
    monkeypatch.setattr(pyamqp.Channel, "queue_delete", delete)
    monkeypatch.setattr(pyamqp.Channel, "close", lambda channel: None)


def asked(connection: Connection, queue: str = "mail", **arguments: Any) -> list[str]:
    connection.channel().queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    return connection.asked


def test_behind_a_new_queue_another_is_declared_and_deleted() -> None:
    assert asked(Connection(set()), **QUORUM) == [
        "look for mail.dead",
        "declare mail",
        "declare mail.dead",
        "declare passing",
        "delete passing",
    ]


def test_an_old_queue_costs_one_look() -> None:
    """Its dead letters were declared after it: where they are, it has been written down.

    They are not declared again, for they may have been with other arguments.
    """
    connection = Connection({"mail", "mail.dead"})
    assert asked(connection, **QUORUM) == ["look for mail.dead", "declare mail"]


def test_a_queue_that_another_has_begun_to_declare_is_written_down_too() -> None:
    assert asked(Connection({"mail"}), **QUORUM)[-2:] == ["declare passing", "delete passing"]


def test_a_queue_without_dead_letters_is_looked_for_itself() -> None:
    connection = Connection(set(), delivery_limit=0)
    assert asked(connection, **QUORUM) == [
        "look for mail",
        "declare mail",
        "declare passing",
        "delete passing",
    ]


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "classic"}, {**QUORUM, "x-expires": 1000}])
def test_queues_of_other_kinds_are_declared_and_that_is_all(arguments: dict[str, Any]) -> None:
    assert asked(Connection(set()), **arguments) == ["declare mail"]


def test_of_the_queues_of_all_delays_the_last_one_has_them_written_down() -> None:
    connection = Connection(set())
    for level in (27, 1, 0):
        asked(connection, f"celery_delayed_{level}", **QUORUM, **{"x-message-ttl": 1})
    assert connection.asked == [
        "declare celery_delayed_27",
        "declare celery_delayed_1",
        "look for celery_delayed_0",
        "declare celery_delayed_0",
        "declare passing",
        "delete passing",
    ]


def test_a_queue_with_other_arguments_leaves_nothing_behind() -> None:
    connection = Connection(set())
    with pytest.raises(QueueDiffers):
        asked(connection, "other", **QUORUM)
    assert len(connection.asked) == 2
    assert not connection.with_dead_letters


def test_dead_letters_that_another_declares_meanwhile_stay_as_they_are() -> None:
    """Processes of different options meet a new queue at once, and none finds the dead letters there."""
    connection = Connection(set())
    connection.refused = "mail.dead"
    channel = connection.channel()
    channel.queue_declare("mail", durable=True, auto_delete=False, arguments=QUORUM)
    assert channel.is_open, "RabbitMQ closes the channel that it refuses a declaration on"
    assert connection.asked[2:] == ["declare mail.dead", "declare passing", "delete passing"]
    assert connection.with_dead_letters == {"mail"}
