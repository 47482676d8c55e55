"""Batches of kombu on the leased transport: stored together, or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu
import pytest
from kombu.exceptions import BatchPublishError

from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports import memory, publishing
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA

QUEUE = "numbers"
CALL = [[], {}, {}]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[kombu.Connection]:
    monkeypatch.setattr(memory, "_file", SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF"))
    with kombu.Connection("memory://", transport="broker_profiles.transports.memory:Transport") as connection:
        kombu.Queue(QUEUE, channel=connection.default_channel, durable=True).declare()
        yield connection


@pytest.fixture
def producer(connection: kombu.Connection) -> kombu.Producer:
    return connection.Producer()


def sizes(connection: kombu.Connection) -> Any:
    return connection.transport.store.sizes(QUEUE)


def received(connection: kombu.Connection) -> list[Any]:
    found = []
    while (message := connection.default_channel.basic_get(QUEUE)) is not None:
        found.append(message.decode())
        message.ack()
    return found


def test_a_batch_is_stored_at_its_end_in_order(
    connection: kombu.Connection, producer: kombu.Producer
) -> None:
    assert producer.supports_batch_publish
    with producer.batch():
        for number in range(20):
            producer.publish(number, routing_key=QUEUE)
        assert sizes(connection).ready == 0
    assert received(connection) == list(range(20))


def test_a_batch_that_is_broken_off_stores_nothing(
    connection: kombu.Connection, producer: kombu.Producer
) -> None:
    with pytest.raises(ZeroDivisionError), producer.batch():
        producer.publish(1, routing_key=QUEUE)
        raise ZeroDivisionError
    assert received(connection) == []


def test_a_full_batch_is_stored_and_the_next_begins(
    connection: kombu.Connection, producer: kombu.Producer
) -> None:
    with producer.batch(max_size=3):
        for number in range(7):
            producer.publish(number, routing_key=QUEUE)
        assert sizes(connection).ready == 6
    assert received(connection) == list(range(7))


def test_a_batch_holds_a_megabyte_at_the_most(connection: kombu.Connection, producer: kombu.Producer) -> None:
    text = "x" * 400_000
    with producer.batch():
        for _ in range(3):
            producer.publish(text, routing_key=QUEUE)
        assert sizes(connection).ready == 2
    assert received(connection) == [text] * 3


def test_what_waits_in_a_batch_is_not_delayed_by_it(
    connection: kombu.Connection, producer: kombu.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with producer.batch():
        producer.publish(CALL, routing_key=QUEUE, headers={"task": "t", "id": "1", "eta": _in_seconds(50)})
        producer.publish(2, routing_key=QUEUE, expiration=50)
        now = time.monotonic()
        monkeypatch.setattr(publishing.time, "monotonic", lambda: now + 60)
    assert sizes(connection).delayed == 0
    assert received(connection) == [CALL]


def _in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_batch_that_failed_says_so_and_takes_no_more(
    connection: kombu.Connection, producer: kombu.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(messages: Any) -> None:
        raise StoreUnavailable(store="the file", problem="it is away")

    with pytest.raises(BatchPublishError, match="takes no more"), producer.batch() as batch:
        producer.publish(1, routing_key=QUEUE)
        with monkeypatch.context() as patched:
            patched.setattr(connection.transport.store, "publish", away)
            with pytest.raises(BatchPublishError, match="1 messages of a batch may be stored or not"):
                batch.flush()
        producer.publish(2, routing_key=QUEUE)
    assert received(connection) == []


def test_a_batch_that_was_broken_off_while_it_was_stored_takes_no_more(
    connection: kombu.Connection, producer: kombu.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(messages: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(BatchPublishError, match="takes no more"), producer.batch() as batch:
        producer.publish(1, routing_key=QUEUE)
        with monkeypatch.context() as patched:
            patched.setattr(connection.transport.store, "publish", broken_off)
            with pytest.raises(KeyboardInterrupt):
                batch.flush()
        producer.publish(2, routing_key=QUEUE)
    assert received(connection) == []


def test_a_message_without_a_queue_is_refused_when_it_is_sent(
    connection: kombu.Connection, producer: kombu.Producer
) -> None:
    exchange = kombu.Exchange("nobody", type="direct", channel=connection.default_channel)
    exchange.declare()
    with producer.batch():
        producer.publish(1, routing_key=QUEUE)
        with pytest.raises(Exception, match="nobody"):
            producer.publish(2, exchange=exchange, routing_key="none")
    assert received(connection) == [1]
