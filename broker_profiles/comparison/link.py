"""A small TCP proxy between clients and a server, and what a network can do to them.

It works for containers, native processes and servers elsewhere alike, for nothing but the client's
address changes. One thread with an event loop carries all the connections of a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal

from broker_profiles.comparison.servers.base import free_ports

#: What the link does to what passes; see the methods of `Link`.
State = Literal["open", "cut", "stalled", "muted"]

_CHUNK = 65_536
#: What one lost packet costs on a network: the shortest retransmission timeout of Linux, in seconds.
RETRANSMISSION_SECONDS = 0.2

#: How long a wait may outlast the fault that it is part of, in seconds.
_SLICE = 0.05

#: The value of SO_LINGER with which closing is a reset and not an end.
_RESET = struct.pack("ii", 1, 0)


class _Connection:
    """One client and, once it is reached, the server behind it."""

    def __init__(self, to_client: asyncio.StreamWriter) -> None:
        self.writers = [to_client]
        #: Once true nothing passes any more, and neither side is told.
        self.dead = False
        #: Once true the client has missed something: what the server says is of no use to it any more.
        self.missed = False
        self._aborted = asyncio.Event()

    async def end(self) -> None:
        """End both sides once they have got everything."""
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            await writer.wait_closed()

    def abort(self) -> None:
        """Reset both sides."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._aborted.set()

    async def wait_aborted(self) -> None:
        """Return once both sides were reset."""
        await self._aborted.wait()


class Link:
    """Listens on a port of 127.0.0.1 and carries what comes to `host:port`.

    Every fault lasts until `heal()`. The methods may be called from any thread.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._state: State = "open"
        self._delay = 0.0
        self._loss = 0.0
        self._rate = 0.0
        #: How many bytes have passed so far, of all connections and both ways.
        self.carried = 0
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._passing = self._do(_event())
        # Not one that the system would give to a client, which could then connect to itself while we are
        # cut, and keep the port from us.
        (self.port,) = free_ports(1)
        self._listener: socket.socket | None = None
        self._do(self._listen())

    # Faults

    def cut(self) -> None:
        """Reset every connection and refuse new ones, as the port of a dead server does."""
        self._do(self._become("cut"))

    def stall(self) -> None:
        """Carry nothing, and tell nobody: a partition. What waits is carried on after `heal()`."""
        self._do(self._become("stalled"))

    def mute(self) -> None:
        """Carry what clients send, and lose what the server sends, its end included.

        `heal()` resets the connections whose clients have missed something: what comes after a hole would
        be taken for the answer to something else.
        """
        self._do(self._become("muted"))

    def half_open(self) -> None:
        """Carry nothing more over the connections there are, for ever, and tell neither side.

        New connections work: as after a firewall has forgotten its old ones.
        """
        self._do(self._forget())

    def reset(self) -> None:
        """Reset every connection; new ones work."""
        self._do(self._abort_all())

    def slow_down(self, *, delay: float = 0.0, bytes_per_second: float = 0.0, loss: float = 0.0) -> None:
        """Delay all that passes by seconds, limit its rate (0: no limit), lose a share of packets.

        A lost packet is what TCP makes of it: its bytes, and all after them, come one retransmission later.
        """
        self._delay, self._rate, self._loss = delay, bytes_per_second, loss

    def heal(self) -> None:
        """End every fault."""
        self._delay = self._loss = self._rate = 0.0
        self._do(self._become("open"))

    def close(self) -> None:
        """End every connection and the listener."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    # In the loop

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._on_client, self._listener)

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()

    # Not `asyncio.start_server`: a client that it has accepted when it is closed gets no answer and no end.
    def _on_client(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone again
            client, _ = listener.accept()
            task = self._loop.create_task(self._accept(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _become(self, state: State) -> None:
        self._state = state
        if state == "cut":
            self._close_listener()
            await self._abort_all()
        elif self._listener is None:
            await self._listen()
        if state == "open":
            for connection in list(self._connections):
                if connection.missed and not connection.dead:
                    connection.abort()
        if state in ("open", "muted"):
            self._passing.set()
        else:
            self._passing.clear()

    async def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    async def _forget(self) -> None:
        for connection in self._connections:
            connection.dead = True

    async def _end(self) -> None:
        self._close_listener()
        await self._abort_all()
        pumps = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _accept(self, client: socket.socket) -> None:
        from_client, to_client = await asyncio.open_connection(sock=client)
        connection = _Connection(to_client)
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if self._state != "cut":
                    await self._carry(from_client, connection)
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _carry(self, from_client: asyncio.StreamReader, connection: _Connection) -> None:
        (to_client,) = connection.writers
        await self._passing.wait()
        if to_client.is_closing():  # reset in the partition
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            await self._may_hear(to_client, connection)
            return
        connection.writers.append(to_server)
        if to_client.is_closing():  # or while the server was called
            return
        await asyncio.gather(
            self._pump(from_client, to_server, connection), self._pump(from_server, to_client, connection)
        )
        await connection.end()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                await self._hold_up(len(data))
                await self._may_pass(connection)
                self.carried += len(data)
                if not self._misses(sink, connection):
                    sink.write(data)
                    await sink.drain()
            await self._may_hear(sink, connection)
            sink.write_eof()
        except (OSError, RuntimeError):
            # Where it is the sink that has failed, it is the source that is told.
            (other,) = (writer for writer in connection.writers if writer is not sink)
            await self._may_hear(sink if source.exception() else other, connection)
            connection.abort()

    async def _hold_up(self, size: int) -> None:
        wait = self._delay + (size / self._rate if self._rate else 0.0)
        if self._loss and random.random() < self._loss:
            wait += RETRANSMISSION_SECONDS
        due = self._loop.time() + wait
        while (self._delay or self._rate or self._loss) and (left := due - self._loop.time()) > 0:
            await asyncio.sleep(min(left, _SLICE))

    async def _may_pass(self, connection: _Connection) -> None:
        """Return once the other side may get anything."""
        await self._passing.wait()
        if connection.dead:
            await connection.wait_aborted()

    def _misses(self, side: asyncio.StreamWriter, connection: _Connection) -> bool:
        """Whether what is for this side is lost: all that is for a client of a server that is mute."""
        if side is not connection.writers[0]:
            return False
        connection.missed = connection.missed or self._state == "muted"
        return connection.missed

    async def _may_hear(self, side: asyncio.StreamWriter, connection: _Connection) -> None:
        """Return once this side may hear of the end of the other: an end, a reset, a refusal."""
        await self._may_pass(connection)
        if self._misses(side, connection):
            await connection.wait_aborted()


async def _event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
