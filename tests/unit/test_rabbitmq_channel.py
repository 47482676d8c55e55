"""What RabbitMQ's channel adds to py-amqp's, without a server."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import RecoverableConnectionError
from kombu.transport import pyamqp

from broker_profiles.errors import Unroutable
from broker_profiles.transports.rabbitmq import Channel, Transport
from broker_profiles.transports.rabbitmq_patience import with_patience


def test_publishing_on_a_channel_whose_connection_was_lost_is_an_error_that_celery_recovers_from() -> None:
    channel = Channel.__new__(Channel)
    channel.connection = None
    with pytest.raises(RecoverableConnectionError):
        channel.basic_publish_confirm("message", exchange="", routing_key="queue")


class Client:
    """What a channel knows of kombu's connection."""

    def __init__(self) -> None:
        self.declared_entities = {"a queue that was declared"}


class Connection:
    """An open connection."""

    confirm_timeout = 3.0

    def __init__(self) -> None:
        self.client = Client()
        self.closed = False

    def collect(self) -> None:
        self.closed = True


def published(monkeypatch: pytest.MonkeyPatch, *, headers: dict[str, Any], mode: int, bound: bool) -> Channel:
    """Publish on a broker that returns what is mandatory and reaches no queue; return the channel."""

    def publish(channel: Channel, message: Message, **options: Any) -> None:
        if options["mandatory"] and not bound:
            channel._on_basic_return(312, "NO_ROUTE", options["exchange"], options["routing_key"], message)

    monkeypatch.setattr(pyamqp.Channel, "basic_publish_confirm", publish)
    channel = Channel.__new__(Channel)
    channel.connection = Connection()
    channel.events = defaultdict(set)
    message = Message("body", application_headers=headers, delivery_mode=mode)
    channel.basic_publish_confirm(message, exchange="tasks", routing_key="mail", mandatory=False)
    return channel


def test_a_task_that_reaches_no_queue_is_an_error_and_the_queue_is_declared_again_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unroutable, match="mail") as raised:
        published(monkeypatch, headers={"task": "send"}, mode=2, bound=False)
    assert isinstance(raised.value, Transport.recoverable_channel_errors)
    channel = published(monkeypatch, headers={"task": "send"}, mode=2, bound=True)
    assert channel.connection.client.declared_entities


def test_declarations_are_forgotten_with_a_task_that_reached_no_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = Connection()
    monkeypatch.setattr(f"{__name__}.Connection", lambda: connection)
    with pytest.raises(Unroutable):
        published(monkeypatch, headers={"task": "send"}, mode=2, bound=False)
    assert not connection.client.declared_entities


@pytest.mark.parametrize(("headers", "mode"), [({}, 2), ({"task": "send"}, 1)])
def test_a_broadcast_and_what_is_not_persistent_may_reach_nobody(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, Any], mode: int
) -> None:
    assert not published(monkeypatch, headers=headers, mode=mode, bound=False)._returned


@pytest.mark.parametrize(
    ("key", "held"), [("0." * 26 + "1.0.mail", False), ("mail", True), ("0.1.mail", True)]
)
def test_only_what_rabbitmq_has_delayed_is_not_delayed_by_a_clock_that_is_behind(
    key: str, held: bool
) -> None:
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    raw = Message(
        "{}", application_headers={"task": "send", "eta": in_an_hour}, content_type="application/json"
    )
    raw.delivery_info = {"routing_key": key}
    message = Channel.Message(raw, channel=Channel.__new__(Channel))
    assert message.headers["eta"] == (in_an_hour if held else None)


@pytest.mark.parametrize(
    ("exchange", "headers", "seconds"),
    [("tasks", {"task": "send"}, 3.0), ("events", {"hostname": "w1"}, 1.0), ("", {}, 3.0)],
)
def test_an_event_is_not_waited_for_as_long_as_a_task_or_a_result(
    monkeypatch: pytest.MonkeyPatch, exchange: str, headers: dict[str, Any], seconds: float
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(
        pyamqp.Channel,
        "basic_publish_confirm",
        lambda channel, message, **options: waited.append(options["confirm_timeout"]),
    )
    channel = Channel.__new__(Channel)
    channel.connection = Connection()
    message = Message("body", application_headers=headers, delivery_mode=2)
    channel.basic_publish_confirm(message, exchange=exchange, routing_key="key")
    assert waited == [seconds]


@pytest.mark.parametrize("version", ["3.10.8", "4.0.5", "4.3.1", ""])
def test_a_queue_for_tasks_waits_for_the_longest_task(version: str) -> None:
    arguments = with_patience({"x-queue-type": "quorum"}, version)
    assert arguments["x-consumer-timeout"] > timedelta(days=300) / timedelta(milliseconds=1)


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "classic", "x-max-priority": 10}])
def test_a_classic_queue_does_until_the_version_that_refuses_the_argument(arguments: dict[str, Any]) -> None:
    assert "x-consumer-timeout" in with_patience(arguments, "4.2.1")
    assert with_patience(arguments, "4.3.0") == arguments


def test_whoever_says_how_long_a_queue_waits_is_right() -> None:
    arguments = {"x-queue-type": "quorum", "x-consumer-timeout": 5000}
    assert with_patience(arguments, "4.0.5") == arguments


@pytest.mark.parametrize(
    "arguments",
    [{"x-expires": 1000}, {"x-queue-type": "quorum", "x-message-ttl": 1}, {"x-queue-type": "stream"}],
)
def test_queues_that_hold_no_tasks_to_be_run_are_as_they_were(arguments: dict[str, Any]) -> None:
    assert with_patience(arguments, "4.0.5") == arguments


@pytest.mark.parametrize("answers", [True, False])
def test_without_confirms_rabbitmq_is_asked_whether_it_is_there(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    clock = iter([1.0, 7.0, 7.5, 8.0])

    def wait(channel: Channel, method: Any, timeout: float) -> None:
        if not answers:
            raise TimeoutError

    monkeypatch.setattr(pyamqp.Channel, "basic_publish", lambda channel, message: done.append(message.body))
    monkeypatch.setattr(pyamqp.Channel, "send_method", lambda channel, *method: done.append("question"))
    monkeypatch.setattr(pyamqp.Channel, "wait", wait)
    monkeypatch.setattr("broker_profiles.transports.rabbitmq.time.monotonic", lambda: next(clock))
    channel = Channel.__new__(Channel)
    channel.connection = connection = Connection()
    channel._asked = 0.0
    channel.basic_publish(Message("soon after it was there"))
    if answers:
        channel.basic_publish(Message("seconds later"))
        channel.basic_publish(Message("soon after it answered"))
        assert done == ["soon after it was there", "question", "seconds later", "soon after it answered"]
    else:
        with pytest.raises(TimeoutError, match="RabbitMQ has not answered"):
            channel.basic_publish(Message("into the void"))
        assert done == ["soon after it was there", "question"]
        assert connection.closed, "it goes on with a dead connection"
