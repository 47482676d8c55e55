"""A message that cannot be settled at once is given back, and not kept by a worker that lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import DecodeError

from broker_profiles.errors import StoreBusy
from broker_profiles.transports import memory
from broker_profiles.transports.memory import MemoryStore
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA
from broker_profiles.transports.store import (
    DELIVERIES_EXHAUSTED,
    REJECTED,
    UNKNOWN_TASK,
    UNREADABLE,
    Sizes,
)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    file = SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF")
    monkeypatch.setattr(memory, "_file", file)
    with Connection("memory://", transport="broker_profiles.transports.memory:Transport") as connection:
        yield connection.default_channel


@pytest.mark.parametrize(("method", "requeue"), [("set_aside", False), ("release", True)])
def test_a_rejection_the_store_refuses_is_tried_again(
    method: str, requeue: bool, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = channel.connection
    store = transport.store
    message = {"body": "{}", "content-type": None, "content-encoding": None, "headers": {}, "properties": {}}
    channel.basic_publish(message, "", "q")
    tag = channel.basic_get("q").delivery_tag

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreBusy(store="it", seconds=1.0)

    # The keeper has a store of its own; here it is asked by hand.
    transport._keeper.end()
    transport._keeper.join(5)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, method, refuse)
        channel.basic_reject(tag, requeue=requeue)
        assert store.sizes("q") == Sizes(leased=1)
    transport.settlements.settle_overdue(store, 0.0)
    assert store.sizes("q") == Sizes(ready=1)
    assert store.reserve("c", ["q"], 1)[0].deliveries == 2


def test_a_rejection_says_which_error_it_was_for(channel: Any) -> None:
    message = {"body": "{}", "content-type": None, "content-encoding": None, "headers": {}, "properties": {}}
    for number in range(2):
        channel.basic_publish(message, "", "q")
        tag = channel.basic_get("q").delivery_tag
        if number:
            channel.basic_reject(tag)
            continue
        try:
            raise KeyError("no.such.task")
        except KeyError:
            channel.basic_reject(tag)
    details = [(letter.reason, letter.detail) for letter in channel.connection.store.dead_letters("q")]
    assert details == [
        (UNKNOWN_TASK, "no task 'no.such.task' is registered with the worker"),
        (REJECTED, ""),
    ]


def failed_and_rejected(channel: Any, deliveries: int, *, requeue: bool) -> None:
    """Deliver a message so often; at the last time its task fails and rejects it, in a call of its own."""
    message = {"body": "{}", "content-type": None, "content-encoding": None, "headers": {}, "properties": {}}
    channel.basic_publish(message, "", "q")
    for _ in range(deliveries - 1):
        channel.basic_reject(channel.basic_get("q").delivery_tag, requeue=True)
    got = channel.basic_get("q")
    channel.note_failure(got, "ValueError: no\nTraceback: here")
    channel.basic_reject(got.delivery_tag, requeue=requeue)


def test_a_rejected_message_keeps_how_its_task_has_failed(channel: Any) -> None:
    failed_and_rejected(channel, 1, requeue=False)
    (letter,) = channel.connection.store.dead_letters("q")
    assert (letter.reason, letter.detail) == (REJECTED, "ValueError: no\nTraceback: here")


def test_the_last_return_of_a_message_keeps_how_its_task_has_failed(channel: Any) -> None:
    failed_and_rejected(channel, 5, requeue=True)
    (letter,) = channel.connection.store.dead_letters("q")
    assert (letter.reason, letter.deliveries) == (DELIVERIES_EXHAUSTED, 5)
    assert letter.detail == "delivered 5 times and never finished: ValueError: no\nTraceback: here"


def test_any_other_return_of_it_is_a_return(channel: Any) -> None:
    failed_and_rejected(channel, 4, requeue=True)
    assert channel.connection.store.sizes("q") == Sizes(ready=1)


@pytest.mark.parametrize(
    ("error", "deliveries"),
    [(None, 1), (SystemExit(0), 1), (StoreBusy(store="it", seconds=1.0), 1), (MemoryError("task"), 2)],
    ids=repr,
)
def test_what_an_error_of_the_worker_gives_back_counts(
    error: BaseException | None, deliveries: int, channel: Any
) -> None:
    message = {"body": "{}", "content-type": None, "content-encoding": None, "headers": {}, "properties": {}}
    store = channel.connection.store
    channel.basic_publish(message, "", "q")
    channel.basic_get("q")
    try:
        if error is not None:
            raise error
        channel.close()
    except BaseException:
        channel.close()  # as Celery's worker ends, whatever it ends of
    assert store.reserve("c", ["q"], 1)[0].deliveries == deliveries


@pytest.mark.parametrize(
    ("body", "headers", "detail"),
    [
        ("[1, 2, 3]", {"task": "t", "id": "1"}, "DecodeError: its arguments are 1 and not a list"),
        ("{}", {"task": "t", "id": "1", "compression": "no/such"}, "no/such"),
        ("{", {}, "DecodeError: "),
    ],
)
def test_what_cannot_be_decoded_is_set_aside_when_it_is_acknowledged(
    body: str, headers: dict[str, str], detail: str, channel: Any
) -> None:
    message = {"body": body, "content-type": "application/json", "content-encoding": "utf-8"}
    channel.basic_publish({**message, "headers": headers, "properties": {}}, "", "q")
    got = channel.basic_get("q")
    if not got.errors:
        with pytest.raises(DecodeError):
            got.decode()
    got.ack()
    (letter,) = channel.connection.store.dead_letters("q")
    assert letter.reason == UNREADABLE
    assert detail in letter.detail
