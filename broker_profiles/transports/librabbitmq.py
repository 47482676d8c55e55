"""RabbitMQ's messages decoded and encoded by the C client, rabbitmq-c; everything else is that of py-amqp.

The Python binding in the package `librabbitmq` cannot be used: `docs/librabbitmq.md` says why, line by line.
What is sound in that package is rabbitmq-c, which it exports. The connection, its channels, confirms,
heartbeats, timeouts and TLS are those of the other RabbitMQ profiles. What differs is how it is read, as much
at once as there is and not three times for each frame; and messages are taken apart and put together in C.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import socket
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.method_framing import frame_writer

from broker_profiles.transports import rabbitmq
from broker_profiles.transports._rabbitmq_c import Reader, Writer

#: The bytes that are read at once.
_AT_ONCE = 65_536

#: The parts of what `Reader.feed` returns for a frame; a message has one more.
_OF_A_FRAME = 3

#: What a read that found nothing fails with; over TLS it is the number of SSL_ERROR_WANT_READ.
_NOTHING_YET = {errno.EAGAIN, errno.EINTR, errno.ENOENT}


def _rabbitmq_c() -> str:
    """Return the file that rabbitmq-c is in. Raises `ImportError`."""
    found = importlib.util.find_spec("_librabbitmq")
    if found is None or found.origin is None:
        raise ImportError("rabbitmq-c is missing: pip install 'broker-profiles[librabbitmq]'")
    return found.origin


def _moment(seconds: int) -> datetime:
    """Return what py-amqp makes of a timestamp: it has no zone, and is UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).replace(tzinfo=None)


def _frame_writer(connection: Any, transport: Any) -> Callable[..., None]:
    """Return what writes the frames of a connection: those of messages in C, unless large or strange.

    One at a time, for a heartbeat comes from another thread.
    """
    by_py_amqp = frame_writer(connection, transport)
    writer = Writer(_rabbitmq_c())
    lock = threading.Lock()

    def write(type_: int, channel: int, method: Any, arguments: Any, content: Any) -> None:
        with lock:
            frames = None
            if content is not None and isinstance(content.body, (str, bytes)):
                body = content.body
                if isinstance(body, str):
                    body = body.encode(content.properties.setdefault("content_encoding", "utf-8"))
                number = method[0] << 16 | method[1]
                largest = connection.frame_max
                frames = writer.publish(channel, number, arguments, content.properties, body, largest)
            if frames is None:
                by_py_amqp(type_, channel, method, arguments, content)
            else:
                transport.write(frames)
                connection.bytes_sent += 1

    return write


class Connection(rabbitmq.Connection):
    """A connection that is read, and on which messages are written, in C."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # As long as a write may take. py-amqp's one second is soon over when so much is sent at once.
            seconds = options.get("write_timeout") or rabbitmq.DEFAULT_TIMEOUT
            patient = {socket.TCP_USER_TIMEOUT: int(1000 * seconds)}
            options["socket_settings"] = {**patient, **(options.get("socket_settings") or {})}
        super().__init__(*args, frame_writer=_frame_writer, **options)

    def connect(self, callback: Any = None) -> Any:
        """Connect, and read what comes from then on from its beginning."""
        if not self.connected:
            self._reader = Reader(_rabbitmq_c(), _moment)
            self._room = bytearray(_AT_ONCE)
            #: What was read and not dealt with yet: frames, and whole messages.
            self._ready: deque[tuple[Any, ...]] = deque()
            #: How many messages are being delivered, each within the one before.
            self._delivering = 0
        return super().connect(callback)

    def drain_events(self, timeout: float | None = None) -> None:
        """Deal with what comes next; where nothing is waited for, with all that has been read.

        An event loop would ask the system after each message whether there is more to read. Publishing looks
        for what has come, too: within a message no further one is begun then, each within the one before.
        """
        if timeout != 0:
            super().drain_events(timeout)
        elif self._delivering:
            self._look()
        else:
            super().drain_events(timeout)
            while self._ready:
                self._deal_with(self._ready.popleft())

    def _look(self) -> None:
        """Deal with frames, such as one that says that RabbitMQ is blocked, up to the next message."""
        if not self._ready:
            self._ready.extend(self._read(0))
        while self._ready and len(self._ready[0]) == _OF_A_FRAME:
            self._deal_with(self._ready.popleft())

    def blocking_read(self, timeout: float | None = None) -> bool:
        """Deal with a message or a frame; return whether that was something that one may wait for."""
        while not self._ready:
            self._ready.extend(self._read(timeout))
        return self._deal_with(self._ready.popleft())

    def _read(self, timeout: float | None) -> list[tuple[Any, ...]]:
        """Return what is complete of what has come. Raises `TimeoutError`, `OSError` or `UnexpectedFrame`."""
        transport = self.transport
        with transport.having_timeout(timeout) as sock:
            try:
                size = sock.recv_into(self._room)
            except OSError as error:
                if error.errno is None or error.errno in _NOTHING_YET:
                    raise TimeoutError("nothing has come yet") from None
                transport.connected = False
                if isinstance(error, TimeoutError):
                    # The system has given the connection up, which is no reason to go on waiting.
                    raise ConnectionResetError(error.errno, error.strerror) from None
                raise
        if not size:
            transport.connected = False
            raise OSError("Server unexpectedly closed connection")
        try:
            return self._reader.feed(memoryview(self._room)[:size])
        except (ValueError, OverflowError, MemoryError) as error:
            transport.connected = False
            problem = str(error) or type(error).__name__
            raise UnexpectedFrame(f"what RabbitMQ sends cannot be read: {problem}") from None

    def _deal_with(self, item: tuple[Any, ...]) -> bool:
        if len(item) == _OF_A_FRAME:
            return bool(self.on_inbound_frame(item))
        number, arguments, properties, body = item
        self.bytes_recv += 1  # py-amqp counts frames, to see whether anything comes
        if self.channels is None:
            raise RecoverableConnectionError("Connection already closed")
        channel = self.channels[number]
        if not channel.is_closing:
            message = Message(body)
            message.properties = properties
            self._delivering += 1
            try:
                channel._on_basic_deliver(*arguments, message)
            finally:
                self._delivering -= 1
        return True

    def deal_with_ready_on_tick(self, loop: Any, read: Callable[[], None]) -> None:
        """Have an event loop call `read` for what has been read already, which it cannot see on the socket.

        Who waits for an answer, as to a new prefetch, reads what has come behind it, too.
        """

        def tick() -> None:
            if not self.connected:
                # The loop finds that out where it reads; to raise here would end what was connected since.
                loop.on_tick.discard(tick)
            elif self._ready:
                read()

        loop.on_tick.add(tick)


class _OnTick:
    """What a transport needs to deal with what its connection has read already."""

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Read whenever something comes, and whenever something has been read: errors are those of a read."""
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        read = functools.partial(self.on_readable, connection, loop)  # type: ignore[attr-defined]
        connection.deal_with_ready_on_tick(loop, read)


class Transport(_OnTick, rabbitmq.Transport):
    """Celery's messages over AMQP, in C."""

    Connection = Connection


class SSLTransport(_OnTick, rabbitmq.SSLTransport):
    """Celery's messages over AMQP and TLS, in C."""

    Connection = Connection
