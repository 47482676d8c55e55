"""A server as a scenario sees it: what can be done to it, each fault written into the ledger.

What was not started here is not harmed: `FaultRefused` says so, and the case counts as not applicable.
Faults of the network need no rights on the server, for they happen in a link of ours before it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import psutil

from broker_profiles.comparison.link import Link
from broker_profiles.comparison.scenario import NotApplicable
from broker_profiles.comparison.servers import Server
from broker_profiles.comparison.servers.guard import kill_tree

#: How long a file may be on a disk that is full, in bytes: enough for what the ledger has still to take.
_FULL = 65_536


class Surroundings(Protocol):
    """What a service needs of its stage."""

    @property
    def processes(self) -> Iterable[int]:
        """The processes of clients and workers."""

    def fault(self, text: str) -> None:
        """Write a fault down."""


class Service(ABC):
    """The faults that every broker knows; one that this one cannot have raises `NotApplicable`."""

    def __init__(self, stage: Surroundings) -> None:
        self._stage = stage

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, to all its processes; returns when they are gone."""

    @abstractmethod
    def stop(self) -> None:
        """An orderly stop."""

    @abstractmethod
    def start(self) -> None:
        """Start it again with the same data; returns when it answers."""

    @abstractmethod
    def freeze(self) -> None:
        """Leave it there without an answer to anything."""

    @abstractmethod
    def thaw(self) -> None:
        """End `freeze`."""

    @abstractmethod
    def fill(self) -> None:
        """Leave it no room: memory or disk."""

    @abstractmethod
    def acknowledge_within(self, seconds: float) -> None:
        """Take back what a consumer that begins after this does not acknowledge in time, though it lives."""

    @abstractmethod
    def heal(self) -> None:
        """End every fault; returns when it answers."""

    @abstractmethod
    def stored(self) -> int:
        """Return how many records it holds of everything: rows, elements, documents, messages."""

    @property
    @abstractmethod
    def link(self) -> Link:
        """The network before it. Raises `NotApplicable` where there is none."""

    @property
    def imitation(self) -> bool:
        """Whether it only speaks the protocol of the system that it stands for."""
        return False

    def cut(self) -> None:
        """Refuse and reset connections, as if nothing listened."""
        link = self.link
        self._stage.fault("network cut")
        link.cut()

    def stall(self) -> None:
        """Let nothing pass, and tell nobody: a partition."""
        link = self.link
        self._stage.fault("network partition")
        link.stall()

    def mute(self) -> None:
        """Let it hear and not be heard: what is sent to it arrives, what it answers is lost."""
        link = self.link
        self._stage.fault("answers lost")
        link.mute()

    def half_open(self) -> None:
        """Let nothing more pass over the connections there are, and tell nobody."""
        link = self.link
        self._stage.fault("connections half open")
        link.half_open()

    def slow_down(self, *, delay: float = 0.0, bytes_per_second: float = 0.0, loss: float = 0.0) -> None:
        """A slow, narrow or lossy network; see `Link.slow_down`."""
        link = self.link
        self._stage.fault(f"network slow: {delay:g} s, {bytes_per_second:g} bytes/s, {loss:.0%} lost")
        link.slow_down(delay=delay, bytes_per_second=bytes_per_second, loss=loss)


class NetworkService(Service):
    """A server behind a link."""

    def __init__(self, server: Server, link: Link, stage: Surroundings) -> None:
        super().__init__(stage)
        self._server = server
        self._link = link
        self._full: Callable[[], None] | None = None
        self._impatient: Callable[[], None] | None = None

    @property
    def imitation(self) -> bool:
        """Whether it only speaks the protocol of the system that it stands for."""
        return self._server.imitation

    @property
    def link(self) -> Link:
        """The link before it."""
        return self._link

    def kill(self) -> None:
        """SIGKILL; its port is closed."""
        self._harm("broker SIGKILL", self._server.kill)
        self._link.cut()

    def stop(self) -> None:
        """An orderly stop; its port is closed."""
        self._harm("broker stopped", self._server.stop)
        self._link.cut()

    def start(self) -> None:
        """Start it again; returns when it answers."""
        self._server.start()
        self._link.heal()
        self._stage.fault("broker back")

    def freeze(self) -> None:
        """SIGSTOP or the engine's pause."""
        self._harm("broker frozen", self._server.pause)

    def _harm(self, text: str, fault: Callable[[], None]) -> None:
        # Noted before it happens, for times are measured from there; but not where it is refused.
        if self._server.owned:
            self._stage.fault(text)
        fault()

    def thaw(self) -> None:
        """End the pause."""
        self._server.resume()
        self._stage.fault("broker thawed")

    def fill(self) -> None:
        """A full disk, or what the server's own system knows: an alarm, a memory limit."""
        empty = self._server.fill()
        if empty is None:
            raise NotApplicable(f"no way is known to fill {self._server.system} here")
        self._full = empty
        self._stage.fault("disk full" if self._server.disk_full else "broker full")

    def acknowledge_within(self, seconds: float) -> None:
        """By a timeout of the server's own, which no client sets."""
        patient = self._server.acknowledge_within(seconds)
        if patient is None:
            raise NotApplicable(f"{self._server.system} itself takes nothing back by time")
        self._impatient = patient
        self._stage.fault(f"unacknowledged for {seconds:g} s: taken back")

    def stored(self) -> int:
        """As the server's own system counts them; what was not started here is not asked."""
        return self._server.stored()

    def heal(self) -> None:
        """Whatever was done to it, running and answering again."""
        self._link.heal()
        self._server.heal()
        undo, self._full, self._impatient = (self._full, self._impatient), None, None
        for usual in filter(None, undo):
            usual()


class FileService(Service):
    """A broker that is a file: it lives and dies in the processes that use it."""

    def __init__(self, path: Path, stage: Surroundings) -> None:
        super().__init__(stage)
        self._path = path
        self._lock: sqlite3.Connection | None = None
        self._limited: list[tuple[psutil.Process, tuple[int, int]]] = []

    @property
    def link(self) -> Link:
        """There is none."""
        raise NotApplicable("a file has no network before it")

    def kill(self) -> None:
        """SIGKILL, to every worker and client: whatever they were writing is cut off."""
        self._stage.fault("every process SIGKILL")
        processes = list(self._stage.processes)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        for pid in processes:
            kill_tree(pid)  # returns when it is gone

    def stop(self) -> None:
        """A file does not stop."""
        raise NotApplicable("a file cannot be stopped")

    def start(self) -> None:
        """Nothing: it is there as soon as somebody opens it."""

    def freeze(self) -> None:
        """Hold the lock of the file."""
        self._stage.fault("file locked")
        self._lock = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        self._lock.execute("BEGIN EXCLUSIVE")

    def thaw(self) -> None:
        """Give the lock up."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.rollback()
            lock.close()
            self._stage.fault("file unlocked")

    def fill(self) -> None:
        """Let no process write a file beyond so many bytes: to SQLite its disk has no more room."""
        if not hasattr(psutil.Process, "rlimit"):
            raise NotApplicable("the size of files cannot be limited on this system")
        self._stage.fault("disk full")
        for main in map(psutil.Process, self._stage.processes):
            for process in (main, *main.children(recursive=True)):
                limits = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (_FULL, limits[1]))
                self._limited.append((process, limits))

    def acknowledge_within(self, seconds: float) -> None:
        """A file does nothing by itself."""
        raise NotApplicable("a file takes nothing back by itself")

    def stored(self) -> int:
        """Count the rows of all tables."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return sum(
                connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for (table,) in tables
            )

    def heal(self) -> None:
        """Give the lock up and the room back."""
        self.thaw()
        for process, limits in self._limited:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, limits)
        self._limited.clear()
