"""A server that sends back what it gets, and what is said to it and heard of it over plain connections."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable

#: How long nothing may happen before a test says that nothing happens, in seconds.
QUIET = 0.3

Dial = Callable[[], socket.socket]


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it gets and keeps it; counts the connections it has and how they ended."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        self.here = 0
        self.ended: list[str] = []
        self.heard = bytearray()
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), EchoHandler)
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def end_all(self) -> None:
        """End every connection, as the system does for a server that was killed."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Echo)
        with server.lock:
            server.here += 1
            server.connections.append(self.request)
        ending = "end"
        try:
            while data := self.request.recv(65_536):
                with server.lock:
                    server.heard += data
                self.request.sendall(data)
        except OSError:
            ending = "reset"
        with server.lock:
            server.here -= 1
            server.ended.append(ending)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(min(65_536, size - len(data)))
        assert more, f"ended after {len(data)} bytes"
        data += more
    return data


def says(connection: socket.socket, data: bytes = b"hello") -> float:
    """Return the seconds until it came back."""
    began = time.monotonic()
    connection.sendall(data)
    assert exactly(connection, len(data)) == data
    return time.monotonic() - began


def silent(connection: socket.socket) -> bool:
    """Whether nothing comes, and no end either."""
    connection.settimeout(QUIET)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(5)
    return False


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.recv(1)
    except ConnectionResetError:
        return True
    return False
