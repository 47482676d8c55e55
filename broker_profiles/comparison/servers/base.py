"""One interface to a real server, however it was had."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import Literal, NoReturn
from urllib.parse import urlsplit

from .description import IMITATION, System, redact

State = Literal["running", "paused", "stopped", "closed"]

START_SECONDS = 120.0  # a database's first start on a loaded machine
STOP_SECONDS = 30.0
PROBE_SECONDS = 2.0
POLL_SECONDS = 0.1


class ServerUnavailable(Exception):
    """A server cannot be had, or does not answer. The text says what was tried and what to do."""


class FaultRefused(ServerUnavailable):
    """The server is not ours to kill, stop or pause."""


class Server:
    """A server that answers. One that was not started here refuses every fault: `FaultRefused`."""

    system: str
    how: str  # "url", "container" or "process"
    url: str  # with the password: for clients, never for print
    version: str  # what the server itself says
    owned: bool = False

    def __init__(self, description: System, how: str, url: str, origin: str):
        self.description = description
        self.system = description.name
        self.how = how
        self.url = url
        self.origin = origin
        self.version = ""
        self.state: State = "running"

    # Faults, for those that we started; `OwnServer` has them

    def kill(self) -> None:
        """SIGKILL, to everything that belongs to the server; returns when it is gone."""
        self._refuse("kill")

    def stop(self) -> None:
        """An orderly stop; SIGKILL when that takes too long."""
        self._refuse("stop")

    def start(self) -> None:
        """Start again with the same data on the same port; returns when it answers."""
        self._refuse("start")

    def pause(self) -> None:
        """Freeze: connections stay open and nothing answers."""
        self._refuse("pause")

    def resume(self) -> None:
        """Go on after a pause; returns when it answers."""
        self._refuse("resume")

    def fill(self) -> Callable[[], None] | None:
        """Leave it no room, and return what gives it back; none where no way is known."""
        self._refuse("fill")

    def acknowledge_within(self, seconds: float) -> Callable[[], None] | None:
        """Have it take back what is not acknowledged in time, and return what undoes that; see `System`."""
        self._refuse("shorten the timeouts of")

    def stored(self) -> int:
        """Return how many records it holds of everything: rows, elements, documents, messages."""
        self._refuse("count the records of")

    @property
    def imitation(self) -> bool:
        """Whether it only speaks the protocol of the system that it stands for."""
        return self.version.endswith(IMITATION)

    @property
    def disk_full(self) -> bool:
        """Whether the disk of its tables has no room, so that it is full in earnest."""
        return False

    def run(self, *command: str) -> str:
        """Run a program of the server's own, where it runs, and return what it printed.

        Raises `ServerUnavailable` where it fails.
        """
        self._refuse("command")

    def heal(self) -> None:
        """Whatever was done to it, running and answering again."""
        self.wait_ready()

    def close(self) -> None:
        """Use it no more; what was started is removed. Once or often."""
        self.state = "closed"

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

    def describe(self) -> str:
        """``redis 8.0.2 (container redis:8)``: for people, without the password."""
        return f"{self.system}{' ' if self.version else ''}{self.version} ({self.origin})"

    def digest(self) -> str:
        """Return what identifies the very program: an image's digest, or an empty string."""
        return ""

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

    def _refuse(self, fault: str) -> NoReturn:
        raise FaultRefused(
            f"cannot {fault} {self.describe()}: it was not started here; for faults unset "
            f"{self.description.url_variable} and let a container or a process be started"
        )

    def _ended(self) -> str:
        """Why it will never answer, or an empty string."""
        return ""


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
