"""A small TCP proxy between clients and a server, and what a network can do to them.

It works for containers, native processes and servers elsewhere alike, for nothing but the client's
address changes. One thread with an event loop carries all the connections of a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from typing import Any, Literal

#: What the link does to what passes; see the methods of `Link`.
State = Literal["open", "cut", "stalled"]

_CHUNK = 65_536
#: What one lost packet costs on a network: the shortest retransmission timeout of Linux, in seconds.
RETRANSMISSION_SECONDS = 0.2


class _Connection:
    """One client and the server behind it."""

    def __init__(self, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self.writers = (to_client, to_server)
        #: Once true nothing passes any more, and neither side is told.
        self.dead = False

    def abort(self) -> None:
        """Reset both sides."""
        for writer in self.writers:
            writer.transport.abort()


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
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._passing = self._do(_event())
        self.port = 0
        self._server: asyncio.Server | None = None
        self._do(self._listen())

    # Faults

    def cut(self) -> None:
        """Reset every connection and refuse new ones, as the port of a dead server does."""
        self._do(self._become("cut"))

    def stall(self) -> None:
        """Carry nothing, and tell nobody: a partition. What waits is carried on after `heal()`."""
        self._do(self._become("stalled"))

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
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _become(self, state: State) -> None:
        self._state = state
        if state == "cut" and self._server is not None:
            self._server.close()
            self._server = None
            await self._abort_all()
        elif state != "cut" and self._server is None:
            await self._listen()
        if state == "open":
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
        if self._server is not None:
            self._server.close()
        await self._abort_all()
        pumps = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._state == "cut":
            to_client.transport.abort()
            return
        await self._passing.wait()
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(to_client, to_server)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pump(from_client, to_server, connection), self._pump(from_server, to_client, connection)
            )
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._hold_up(len(data))
                if connection.dead:
                    await asyncio.Event().wait()  # until the link is closed
                sink.write(data)
                await sink.drain()
            if connection.dead:
                await asyncio.Event().wait()
            await self._passing.wait()
            with contextlib.suppress(OSError, RuntimeError):
                sink.write_eof()
            return
        connection.abort()

    async def _hold_up(self, size: int) -> None:
        wait = self._delay + (size / self._rate if self._rate else 0.0)
        if self._loss and random.random() < self._loss:
            wait += RETRANSMISSION_SECONDS
        if wait:
            await asyncio.sleep(wait)
        await self._passing.wait()


async def _event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
