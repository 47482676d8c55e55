"""One interface to a real server, however it was had."""

from __future__ import annotations

import atexit
import os
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from typing import Literal
from urllib.parse import urlsplit

from .description import System, redact

State = Literal["running", "paused", "stopped", "closed"]

START_SECONDS = 120.0  # a database's first start on a loaded machine
STOP_SECONDS = 30.0
PROBE_SECONDS = 2.0
POLL_SECONDS = 0.1


class ServerUnavailable(Exception):
    """A server cannot be had, or does not answer. The text says what was tried and what to do."""


class FaultRefused(ServerUnavailable):
    """The server is not ours to kill, stop or pause."""


class Server(ABC):
    """A server that answers, and the faults that can be done to it.

    Faults are of the state that they lead to, so a repeated one does nothing: killing a dead
    server, resuming one that runs. ``start`` and ``resume`` return when the server answers.
    """

    system: str
    how: str  # "url", "container" or "process"
    url: str  # with the password: for clients, never for print
    version: str  # what the server itself says
    owned: bool

    def __init__(self, description: System, how: str, url: str, origin: str, *, owned: bool):
        self.description = description
        self.system = description.name
        self.how = how
        self.url = url
        self.origin = origin
        self.owned = owned
        self.version = ""
        self.state: State = "running"
        self._process_id = os.getpid()

    # Faults

    def kill(self) -> None:
        """SIGKILL, to everything that belongs to the server; returns when it is gone."""
        self._must_be_ours("kill")
        if self.state != "stopped":
            self._kill()
            self.state = "stopped"

    def stop(self) -> None:
        """An orderly stop; SIGKILL when that takes too long."""
        self._must_be_ours("stop")
        if self.state == "paused":  # a frozen process cannot end in order
            self._resume()
            self.state = "running"
        if self.state != "stopped":
            self._stop()
            self.state = "stopped"

    def start(self) -> None:
        """Start again with the same data on the same port; returns when it answers."""
        self._must_be_ours("start")
        if self.state == "paused":
            raise FaultRefused(f"{self.describe()} is paused: resume it, it has not stopped")
        if self.state == "stopped":
            self._start()
            self.state = "running"
        self.wait_ready(START_SECONDS)

    def pause(self) -> None:
        """Freeze: connections stay open and nothing answers."""
        self._must_be_ours("pause")
        if self.state == "stopped":
            raise FaultRefused(f"{self.describe()} is stopped: start it before a pause")
        if self.state == "running":
            self._pause()
            self.state = "paused"

    def resume(self) -> None:
        """Go on after a pause; returns when it answers."""
        self._must_be_ours("resume")
        if self.state == "paused":
            self._resume()
            self.state = "running"
        self.wait_ready(START_SECONDS)

    def heal(self) -> None:
        """Whatever was done to it, running and answering again."""
        if self.state == "paused":
            self.resume()
        elif self.state == "stopped":
            self.start()
        else:
            self.wait_ready()

    # The rest

    def wait_ready(self, timeout: float = 60) -> None:
        """Poll until a client can log in, or raise ``ServerUnavailable`` after ``timeout``."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.version = self.description.probe(self.url, min(PROBE_SECONDS, timeout))
                return
            except ImportError:
                raise ServerUnavailable(
                    f"the driver is missing: pip install '{self.description.driver}'"
                ) from None
            except Exception as error:  # drivers have no common root; any failure is "not yet"
                reason = str(error) or type(error).__name__
            ended = self._ended()
            if ended or time.monotonic() >= deadline:
                said = ended or f"no answer within {timeout:g} s: {reason}"
                raise ServerUnavailable(self.redact(f"{self.describe()}: {said}")) from None
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Remove what was started: container, processes, folder. Once or often."""
        # A forked child inherits the object, not the server.
        if self.state == "closed" or os.getpid() != self._process_id:
            return
        self._close()
        self.state = "closed"
        with _lock:
            _open.discard(self)

    def describe(self) -> str:
        """``redis 8.0.2 (container redis:8)``: for people, without the password."""
        return f"{self.system}{' ' if self.version else ''}{self.version} ({self.origin})"

    def digest(self) -> str:
        """Return what identifies the very program: an image's digest, or an empty string."""
        return ""

    def run(self, *command: str) -> None:
        """Run a program of the server's own, where it runs. Raises `ServerUnavailable` where it fails."""
        self._must_be_ours("command")

    def cpu_seconds(self) -> float | None:
        """Return the processor time it has used since its start; none where that cannot be seen."""
        return None

    def memory(self) -> int | None:
        """Return the memory of all its processes, in bytes; none where that cannot be seen."""
        return None

    def __repr__(self) -> str:
        return f"<{self.describe()} at {self.redact(urlsplit(self.url).netloc.rpartition('@')[2])}>"

    def redact(self, text: str) -> str:
        """The text on one line without the password."""
        return redact(text, self.url)

    def _must_be_ours(self, fault: str) -> None:
        if not self.owned:
            raise FaultRefused(
                f"cannot {fault} {self.describe()}: it was not started here; for faults unset "
                f"{self.description.url_variable} and let a container or a process be started"
            )
        if self.state == "closed":
            raise FaultRefused(f"cannot {fault} {self.describe()}: it is closed")

    def _register(self) -> None:
        """Close at the end of the interpreter, if nobody did before."""
        with _lock:
            _open.add(self)

    # How

    @abstractmethod
    def _kill(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _pause(self) -> None: ...

    @abstractmethod
    def _resume(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _ended(self) -> str:
        """Why it will never answer, or an empty string."""


_open: set[Server] = set()
_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    for server in list(_open):
        server.close()


# Below the range that systems give to outgoing connections. On a port of that range a client that
# keeps trying while the server is down can be given the server's own port and connect to itself,
# and the server cannot come back.
_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
