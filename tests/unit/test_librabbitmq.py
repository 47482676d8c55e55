"""How the C client's connection is read: as much as there is, never longer than asked for."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport
from kombu.asynchronous import Hub

pytest.importorskip(
    "broker_profiles.transports._rabbitmq_c", reason="it is built where there is a C compiler"
)
from broker_profiles.transports import librabbitmq
from broker_profiles.transports._rabbitmq_c import Reader
from tests.unit.test_rabbitmq_c import HEARTBEAT, delivery, frame


class Channel:
    """A channel that keeps what it is given, with its tags."""

    is_closing = False

    def __init__(self) -> None:
        self.received: list[tuple[int, bytes]] = []
        self.raises: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def _on_basic_deliver(
        self, consumer: str, tag: int, again: bool, exchange: str, key: str, raw: Message
    ) -> None:
        assert (consumer, again, exchange, key) == ("a consumer", True, "", "mail")
        self.received.append((tag, raw.body))
        self.meanwhile()
        if self.raises is not None:
            raise self.raises

    def collect(self) -> None:
        """Do nothing: the connection has been closed."""


class Frames:
    """What is left to py-amqp."""

    def __init__(self) -> None:
        self.types: list[int] = []

    def __call__(self, item: tuple[int, int, bytes]) -> bool:
        self.types.append(item[0])
        return item[0] != HEARTBEAT


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def rabbitmq(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    """The other end of the connection."""
    return ends[1]


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def connection(ends: tuple[socket.socket, socket.socket], channel: Channel) -> Any:
    connection = librabbitmq.Connection.__new__(librabbitmq.Connection)
    transport = TCPTransport("localhost")
    transport.sock = ends[0]
    transport.connected = True
    connection._transport = transport
    connection.channels = {1: channel}
    connection.on_inbound_frame = Frames()
    connection.bytes_recv = 0
    connection._reader = Reader(librabbitmq._rabbitmq_c(), librabbitmq._moment)
    connection._room = bytearray(65_536)
    connection._ready = deque()
    connection._delivering = 0
    return connection


def test_half_a_message_is_not_waited_for(connection: Any, channel: Channel, rabbitmq: socket.socket) -> None:
    sent = b"".join(delivery({}, b"whole"))
    rabbitmq.sendall(sent[:-3])
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=timeout)
    assert channel.received == []
    rabbitmq.sendall(sent[-3:])
    connection.drain_events(timeout=5)
    assert channel.received == [(1, b"whole")]


def test_a_loop_gets_all_that_is_there_and_who_waits_for_one_event_gets_one(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(b"".join(b"".join(delivery({}, b"", tag=tag)) for tag in range(1, 6)))
    connection.drain_events(timeout=5)
    assert [tag for tag, _ in channel.received] == [1]
    connection.drain_events(timeout=0)
    assert [tag for tag, _ in channel.received] == [1, 2, 3, 4, 5]
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0)


def test_to_publish_within_a_message_begins_no_other_and_sees_frames(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    blocked = frame(1, 0, b"blocked")
    several = [b"".join(delivery({}, b"", tag=tag)) for tag in range(1, 400)]
    rabbitmq.sendall(several[0] + blocked + b"".join(several[1:]))
    depth = deepest = 0

    def publish() -> None:
        # As py-amqp does before it sends a message.
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=0)
        assert connection.on_inbound_frame.types == [1]
        depth -= 1

    channel.meanwhile = publish
    with contextlib.suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0)
    assert [tag for tag, _ in channel.received] == list(range(1, 400))
    assert deepest == 1


def test_who_waits_within_a_message_gets_the_next_one(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(b"".join(b"".join(delivery({}, b"", tag=tag)) for tag in (1, 2)))

    def wait() -> None:
        channel.meanwhile = lambda: None
        connection.drain_events(timeout=5)

    channel.meanwhile = wait
    connection.drain_events(timeout=5)
    assert [tag for tag, _ in channel.received] == [1, 2]


def test_a_heartbeat_is_not_an_event_and_counts_as_a_sign_of_life(
    connection: Any, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(frame(HEARTBEAT, 0, b""))
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0)
    assert connection.on_inbound_frame.types == [HEARTBEAT]


def test_what_a_consumer_raises_is_raised_and_nothing_is_lost(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(b"".join(b"".join(delivery({}, b"", tag=tag)) for tag in (1, 2)))
    channel.raises = LookupError("mine")
    with pytest.raises(LookupError, match="mine"):
        connection.drain_events(timeout=0)
    channel.raises = None
    connection.drain_events(timeout=0)
    assert [tag for tag, _ in channel.received] == [1, 2]


def test_what_comes_for_a_channel_that_is_closing_is_dropped(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(b"".join(delivery({})))
    channel.is_closing = True
    connection.drain_events(timeout=5)
    assert channel.received == []


def test_the_end_of_the_connection_is_an_error(connection: Any, rabbitmq: socket.socket) -> None:
    rabbitmq.close()
    with pytest.raises(OSError, match="unexpectedly closed"):
        connection.drain_events(timeout=5)
    assert not connection._transport.connected


def test_what_was_read_before_the_connection_was_given_up_is_not_delivered(
    connection: Any, channel: Channel, rabbitmq: socket.socket
) -> None:
    rabbitmq.sendall(b"".join(b"".join(delivery({}, b"", tag=tag)) for tag in (1, 2)))
    connection.drain_events(timeout=5)
    connection.channels = None
    with pytest.raises(RecoverableConnectionError):
        connection.drain_events(timeout=0)
    assert [tag for tag, _ in channel.received] == [1]


def test_what_is_not_amqp_is_an_error_of_the_connection(connection: Any, rabbitmq: socket.socket) -> None:
    rabbitmq.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(UnexpectedFrame, match="cannot be read: a frame of"):
        connection.drain_events(timeout=5)
    assert not connection._transport.connected


@pytest.mark.parametrize("error", [OverflowError, MemoryError])
def test_what_cannot_be_taken_is_an_error_of_the_connection(
    connection: Any, rabbitmq: socket.socket, error: type[Exception]
) -> None:
    class Full:
        def feed(self, data: memoryview) -> list[Any]:
            raise error("too much")

    rabbitmq.sendall(b"".join(delivery({})))
    connection._reader = Full()
    with pytest.raises(UnexpectedFrame, match="cannot be read: too much"):
        connection.drain_events(timeout=5)
    assert not connection._transport.connected


@pytest.fixture
def loop(connection: Any, rabbitmq: socket.socket) -> Iterator[Hub]:
    """An event loop that reads the connection, on which an answer and four messages were read at once."""
    hub = Hub()
    librabbitmq.Transport(None).register_with_event_loop(connection, hub)
    messages = b"".join(b"".join(delivery({}, b"", tag=tag)) for tag in range(1, 5))
    rabbitmq.sendall(frame(1, 1, b"an answer") + messages)
    connection.drain_events(timeout=5)
    assert connection.on_inbound_frame.types == [1]
    yield hub
    hub.close()


def test_what_was_read_with_an_answer_is_delivered_on_the_next_tick(loop: Hub, channel: Channel) -> None:
    assert channel.received == []
    loop.run_once()
    assert [tag for tag, _ in channel.received] == [1, 2, 3, 4]


def test_what_a_consumer_raises_on_a_tick_ends_the_loop_as_where_it_reads(
    loop: Hub, channel: Channel
) -> None:
    channel.raises = TimeoutError("swallowed by kombu where it reads")
    loop.run_once()
    channel.raises = RecoverableConnectionError("raised")
    with pytest.raises(RecoverableConnectionError, match="raised"):
        loop.run_once()
    assert [tag for tag, _ in channel.received] == [1, 2]


@pytest.mark.parametrize("end", ["closed", "lost"])
def test_a_connection_that_has_ended_does_not_stay_in_the_loop(
    connection: Any, loop: Hub, channel: Channel, end: str
) -> None:
    assert len(loop.on_tick) == 1
    loop.remove_reader(connection.sock)
    if end == "closed":
        connection.collect()
    else:
        connection._transport.connected = False
    loop.run_once()
    assert (loop.on_tick, channel.received) == (set(), [])
