"""A server that we started, and may therefore kill, stop, freeze and remove."""

from __future__ import annotations

import atexit
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from .base import START_SECONDS, FaultRefused, Server
from .description import System


class OwnServer(Server, ABC):
    """The faults of a server of ours, over what each way of starting one knows how to do.

    Faults are of the state that they lead to, so a repeated one does nothing: killing a dead
    server, resuming one that runs. ``start`` and ``resume`` return when the server answers.
    """

    owned = True

    def __init__(self, description: System, how: str, url: str, origin: str):
        super().__init__(description, how, url, origin)
        self._process_id = os.getpid()

    def kill(self) -> None:
        """SIGKILL, to everything that belongs to the server; returns when it is gone."""
        self._must_be_open("kill")
        if self.state != "stopped":
            self._kill()
            self.state = "stopped"

    def stop(self) -> None:
        """An orderly stop; SIGKILL when that takes too long."""
        self._must_be_open("stop")
        if self.state == "paused":  # a frozen process cannot end in order
            self._resume()
            self.state = "running"
        if self.state != "stopped":
            self._stop()
            self.state = "stopped"

    def start(self) -> None:
        """Start again with the same data on the same port; returns when it answers."""
        self._must_be_open("start")
        if self.state == "paused":
            raise FaultRefused(f"{self.describe()} is paused: resume it, it has not stopped")
        if self.state == "stopped":
            self._start()
            self.state = "running"
        self.wait_ready(START_SECONDS)

    def pause(self) -> None:
        """Freeze: connections stay open and nothing answers."""
        self._must_be_open("pause")
        if self.state == "stopped":
            raise FaultRefused(f"{self.describe()} is stopped: start it before a pause")
        if self.state == "running":
            self._pause()
            self.state = "paused"

    def resume(self) -> None:
        """Go on after a pause; returns when it answers."""
        self._must_be_open("resume")
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

    def close(self) -> None:
        """Remove what was started: container, processes, folder. Once or often."""
        # A forked child inherits the object, not the server.
        if self.state == "closed" or os.getpid() != self._process_id:
            return
        self._close()
        self.state = "closed"
        with _lock:
            _open.discard(self)

    def fill(self) -> Callable[[], None] | None:
        """Leave it no room, as its system knows how."""
        self._must_be_open("fill")
        return self.description.fill(self)

    def acknowledge_within(self, seconds: float) -> Callable[[], None] | None:
        """Have it take back what is not acknowledged in time, as its system knows how."""
        self._must_be_open("shorten the timeouts of")
        return self.description.acknowledge_within(self, seconds)

    def stored(self) -> int:
        """Return how many records it holds of everything, as its system counts them."""
        self._must_be_open("count the records of")
        return self.description.stored(self)

    def _must_be_open(self, fault: str) -> None:
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
    def _ended(self) -> str: ...


_open: set[OwnServer] = set()
_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    for server in list(_open):
        server.close()
