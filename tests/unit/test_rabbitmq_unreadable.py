"""What cannot be read leaves its queue once its dead letter is confirmed, and not before."""

from __future__ import annotations

import contextlib
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from amqp import spec
from amqp.basic_message import Message as Raw
from amqp.spec import Basic
from kombu.transport import pyamqp

from broker_profiles.transports.rabbitmq import Channel, Connection
from broker_profiles.transports.rabbitmq_unreadable import _CONFIRMED, Aside, _Letter

GOOD: dict[str, Any] = {"task": "send", "id": "one"}

Settled = list[tuple[str, int]]


class Publisher:
    """The channel that dead letters are published on: it keeps them, and never confirms by itself."""

    def __init__(self) -> None:
        self.connection: Any = self
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.published: list[Raw] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def confirm_select(self) -> None:
        """Take note of what is published."""

    def send_method(self, method: Any, signature: str, arguments: tuple[Any, ...], message: Raw) -> None:
        """Write a message, with whatever happens before that is done."""
        assert method == Basic.Publish
        assert arguments == (0, "", "mail.dead", True, False), "not into the queue, or not mandatory"
        self.published.append(message)
        self.meanwhile()

    def drain_events(self, timeout: float) -> None:
        """As a connection: confirm what was published first."""
        assert timeout > 0
        self.say("basic_ack", 1, False)

    def say(self, event: str, *about: Any) -> None:
        (callback,) = self.events[event]
        callback(*about)

    @property
    def ids(self) -> list[str]:
        return [message.properties["application_headers"]["id"] for message in self.published]

    @property
    def said(self) -> list[tuple[str, str]]:
        """The reasons and details of what was published."""
        headers = [message.properties["application_headers"]["x-set-aside"] for message in self.published]
        return [(each["reason"], each["detail"]) for each in headers]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Settled:
    """How messages were settled with RabbitMQ, by their delivery tags."""
    log: Settled = []

    def reject(channel: Channel, tag: int, requeue: bool) -> None:
        log.append(("put back" if requeue else "reject", tag))

    monkeypatch.setattr(pyamqp.Channel, "basic_ack", lambda channel, tag, multiple: log.append(("ack", tag)))
    monkeypatch.setattr(pyamqp.Channel, "basic_reject", reject)
    return log


@pytest.fixture
def channel(publisher: Publisher, settled: Settled) -> Channel:
    channel = Channel.__new__(Channel)
    channel.is_open = True
    channel._failed = {}
    channel.connection = SimpleNamespace(channel=lambda: publisher, aside=None, delivery_limit=5)
    return channel


def raw(tag: int = 1, body: str = "[[], {}, {}]", headers: dict[str, Any] | None = None) -> Raw:
    properties = {"content_type": "application/json", "content_encoding": "utf-8"}
    message = Raw(body, application_headers=GOOD if headers is None else headers, **properties)
    message.delivery_info = {"delivery_tag": tag}
    return message


def accept(channel: Channel) -> Callable[[Raw], None]:
    """Return a consumer like Celery's: it decodes, and acknowledges what it has done or cannot decode."""

    def receive(message: Raw) -> None:
        received = channel.message_to_python(message)
        with contextlib.suppress(Exception):
            received.decode()
        received.ack()

    return channel.reading("mail", receive)


def test_what_can_be_read_is_acknowledged_at_once(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    accept(channel)(raw())
    assert settled == [("ack", 1)]
    assert not publisher.published


@pytest.mark.parametrize(
    ("body", "headers", "detail"),
    [
        ("{", GOOD, "DecodeError"),
        ("5", GOOD, "its body is not"),
        ("", GOOD, "its body is not"),
        ("[5, {}, {}]", GOOD, "its arguments are 5"),
        ("[[], {}, {}]", {**GOOD, "compression": "none-such"}, "none-such"),
        ("[[], {}, {}]", {**GOOD, "timelimit": 7}, "its header timelimit is 7"),
        ("{", {}, "DecodeError"),
    ],
)
def test_what_cannot_is_kept_until_its_dead_letter_is_confirmed(
    body: str, headers: dict[str, Any], detail: str, channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    accept(channel)(raw(7, body, headers))
    ((reason, why),) = publisher.said
    assert reason == "cannot decode"
    assert detail in why
    assert not settled
    publisher.say("basic_ack", 1, False)
    assert settled == [("ack", 7)]


def test_a_rejection_has_the_error_being_handled_for_its_reason(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    def refuse(message: Raw) -> None:
        try:
            raise KeyError("no.such.task")
        except KeyError:
            channel.message_to_python(message).reject()

    channel.reading("mail", refuse)(raw())
    assert publisher.said == [("unknown task", "no task 'no.such.task' is registered with the worker")]
    assert not settled


@pytest.mark.parametrize(
    ("returns", "requeue", "said", "how"),
    [
        (0, False, [("rejected", "ValueError: no\nTraceback: here")], []),
        (3, True, [], [("put back", 1)]),
        (
            4,
            True,
            [
                (
                    "deliveries exhausted",
                    "delivered 5 times and never finished: ValueError: no\nTraceback: here",
                )
            ],
            [],
        ),
    ],
)
def test_a_failure_is_kept_where_it_was_the_last(
    returns: int,
    requeue: bool,
    said: list[tuple[str, str]],
    how: Settled,
    channel: Channel,
    publisher: Publisher,
    settled: Settled,
) -> None:
    received: list[Any] = []
    deliver = channel.reading("mail", lambda raw: received.append(channel.message_to_python(raw)))
    deliver(raw(headers={**GOOD, "x-delivery-count": returns}))
    channel.note_failure(received[0], "ValueError: no\nTraceback: here")
    received[0].reject(requeue=requeue)
    assert publisher.said == said
    assert settled == how


@pytest.mark.parametrize(("requeue", "how"), [(False, "reject"), (True, "put back")])
def test_a_rejection_without_an_error_is_left_to_rabbitmq(
    requeue: bool, how: str, channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    channel.reading("mail", lambda message: channel.basic_reject(1, requeue=requeue))(raw())
    assert settled == [(how, 1)]
    assert not publisher.published


def test_a_consumer_that_fails_at_a_task_message_does_not_end(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    channel.reading("mail", lambda message: int("x"))(raw())
    ((reason, why),) = publisher.said
    assert (reason, why.partition(":")[0]) == ("cannot decode", "ValueError")


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), *(kind() for kind in pyamqp.Transport.channel_errors)]
)
def test_an_error_of_the_broker_is_none_of_the_message(
    error: Exception, channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    def fail(message: Raw) -> None:
        raise error

    with pytest.raises(type(error)):
        channel.reading("mail", fail)(raw())
    assert not publisher.published
    assert not settled


@pytest.mark.parametrize("headers", [{}, GOOD])
def test_an_error_that_is_no_messages_ends_the_consumer(
    headers: dict[str, Any], channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    """Of what is no task message it is not known whose fault it is, nor of what was acknowledged before."""

    def fail(message: Raw) -> None:
        if headers:
            channel.basic_ack(1)
        raise ValueError

    with pytest.raises(ValueError):
        channel.reading("mail", fail)(raw(headers=headers))
    assert not publisher.published


@pytest.mark.parametrize("event", ["basic_nack", "basic_return"])
def test_what_rabbitmq_does_not_take_as_a_dead_letter_it_has_to_move_itself(
    event: str, channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    accept(channel)(raw(7, "{"))
    publisher.say(event, 1, False)
    publisher.say("basic_ack", 1, False)  # which follows what was returned
    assert settled == [("reject", 7)]


def test_one_confirm_may_be_for_many(channel: Channel, publisher: Publisher, settled: Settled) -> None:
    deliver = accept(channel)
    for tag in range(5, 9):
        deliver(raw(tag, "{"))
    publisher.say("basic_ack", 3, True)
    assert settled == [("ack", 5), ("ack", 6), ("ack", 7)]
    publisher.say("basic_ack", 4, False)
    assert settled[3:] == [("ack", 8)]


def elsewhere(act: Callable[[], object]) -> None:
    """Do something in another thread, and wait until it is done."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the other thread waits for this one"


def test_a_confirm_that_is_read_before_the_publication_returns_is_of_that_message(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    """A thread of the pool publishes what it rejects, while the worker's loop reads."""
    publisher.meanwhile = lambda: elsewhere(lambda: publisher.say("basic_ack", 1, False))
    accept(channel)(raw(7, "{"))
    assert settled == [("ack", 7)]


def test_messages_of_several_threads_are_each_confirmed_for_themselves(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    tags = [range(first, first + 100) for first in (1000, 2000, 3000, 4000)]
    accept(channel)

    def put(mine: range) -> None:
        for tag in mine:
            message = raw(tag, headers={**GOOD, "id": tag})
            channel.connection.aside.put(_Letter(channel, "mail", message, "rejected", ""))

    every = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=put, args=(mine,)) for mine in tags]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(every)
    assert sorted(publisher.ids) == [tag for mine in tags for tag in mine]
    for number in range(1, len(publisher.ids) + 1):
        publisher.say("basic_ack", number, False)
    assert settled == [("ack", tag) for tag in publisher.ids]


def test_what_cannot_be_written_again_is_left_to_rabbitmq(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    def fail() -> None:
        raise ValueError("a header that no table can hold")

    publisher.meanwhile = fail
    accept(channel)(raw(7, "{"))
    assert settled == [("reject", 7)]


def test_what_was_not_written_has_no_number(channel: Channel, publisher: Publisher, settled: Settled) -> None:
    def fail() -> None:
        raise ValueError("a header that no table can hold")

    deliver = accept(channel)
    publisher.meanwhile = fail
    deliver(raw(7, "{"))
    publisher.meanwhile = lambda: None
    deliver(raw(8, "{"))
    publisher.say("basic_ack", 1, False)
    assert settled == [("reject", 7), ("ack", 8)]


def test_nothing_is_acknowledged_for_another_after_a_write_of_which_nobody_knows_how_far_it_came(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    def fail() -> None:
        raise TimeoutError

    deliver = accept(channel)
    publisher.meanwhile = fail
    with pytest.raises(TimeoutError):
        deliver(raw(7, "{"))
    publisher.meanwhile = lambda: None
    deliver(raw(8, "{"))
    publisher.say("basic_ack", 1, False)
    assert settled == [("reject", 8)]


def test_nothing_is_settled_on_a_channel_that_has_ended(
    channel: Channel, publisher: Publisher, settled: Settled
) -> None:
    accept(channel)(raw(7, "{"))
    channel.is_open = False
    publisher.say("basic_ack", 1, False)
    assert not settled


def test_a_channel_that_is_closed_waits_for_the_confirms_on_their_way(
    channel: Channel, settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyamqp.Channel, "close", lambda channel: settled.append(("close", 0)))
    accept(channel)(raw(7, "{"))
    channel.close()
    channel.close()  # with nothing more to wait for
    assert settled == [("ack", 7), ("close", 0), ("close", 0)]


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
def test_a_channel_without_its_connection_waits_for_nothing(
    lost: bool, channel: Channel, publisher: Publisher, settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyamqp.Channel, "close", lambda channel: settled.append(("close", 0)))
    drain = Mock(side_effect=ConnectionResetError)
    accept(channel)(raw(7, "{"))
    publisher.connection = SimpleNamespace(drain_events=drain) if lost else None
    began = time.monotonic()
    channel.close()
    assert time.monotonic() - began < _CONFIRMED
    assert drain.call_count == lost
    assert settled == [("close", 0)]


def test_a_dead_letter_does_not_expire_and_goes_nowhere_else(channel: Channel, publisher: Publisher) -> None:
    message = raw(1, "{", {**GOOD, "CC": ["elsewhere"]})
    message.properties.update(expiration="1000", user_id="somebody", correlation_id="one", delivery_mode=1)
    accept(channel)(message)
    (letter,) = publisher.published
    assert letter.body == "{"
    assert not {"expiration", "user_id"} & set(letter.properties)
    assert letter.properties["correlation_id"] == "one"
    assert letter.properties["delivery_mode"] == 2
    assert set(letter.properties["application_headers"]) == {"task", "id", "x-set-aside"}


def test_the_channel_for_dead_letters_is_opened_once_for_all_consumers(channel: Channel) -> None:
    accept(channel)
    first = channel.connection.aside
    assert isinstance(first, Aside)
    accept(channel)
    assert channel.connection.aside is first


def inbound(callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], Any]:
    """Return what takes the frames of a connection that is not connected."""
    connection = Connection()
    return connection.frame_handler_cls(SimpleNamespace(bytes_recv=0), callback)


def of_a_delivery(levels: int, body: bytes) -> list[tuple[int, int, bytes]]:
    """Return the frames of a message whose headers are so many tables within each other."""
    table = b""
    for _ in range(levels):
        table = b"\0F" + struct.pack(">I", len(table)) + table
    header = struct.pack(">HHQHI", spec.Basic.CLASS_ID, 0, len(body), 0x2000, len(table)) + table
    bodies = [(3, 1, body)] if body else []
    return [(1, 1, struct.pack(">HH", *spec.Basic.Deliver)), (2, 1, header), *bodies]


@pytest.mark.parametrize("body", [b"[[], {}, {}]", b""])
def test_headers_that_are_nested_too_deep_are_a_dead_letter_with_its_reason(
    channel: Channel, publisher: Publisher, settled: Settled, body: bytes
) -> None:
    received: list[Any] = []

    def receive(number: int, method: Any, arguments: bytes, message: Raw) -> None:
        message.delivery_info = {"delivery_tag": 1}
        channel.reading("mail", received.append)(message)

    take = inbound(receive)
    for each in of_a_delivery(5000, body):
        take(each)
    ((reason, detail),) = publisher.said
    assert (reason, detail[:15], received) == ("cannot decode", "RecursionError:", [])
    assert [message.body or b"" for message in publisher.published] == [body]
    publisher.say("basic_ack", 1, False)
    assert settled == [("ack", 1)]


def test_the_next_message_is_read_and_what_its_consumer_raises_is_raised() -> None:
    tags: list[int] = []

    def receive(number: int, method: Any, arguments: bytes, message: Raw) -> None:
        tags.append(len(message.properties["application_headers"]))
        raise RecursionError("of the consumer")

    take = inbound(receive)
    for levels in (5000, 1):
        method, header = of_a_delivery(levels, b"")
        take(method)
        with pytest.raises(RecursionError, match="of the consumer"):
            take(header)
    assert tags == [1, 1]
