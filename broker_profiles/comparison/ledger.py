"""The ledger: what was sent, started and finished, written down outside the broker.

Every process appends to a file of its own, one line an event and one write a line, so that a process
that is killed loses nothing it has written and two processes never mix their lines. A process that does
not share the file system sends its lines over a socket to a `Collector`, which appends them for it.

Times are of the system's monotonic clock, in seconds: processes of one machine share it, containers too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import select
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

Kind = Literal["sending", "sent", "refused", "start", "finish", "dead", "withdrawn", "ready", "fault", "note"]
KINDS: tuple[str, ...] = get_args(Kind)

#: Where a process finds its ledger: a folder, or `tcp://HOST:PORT` of a collector.
VARIABLE = "COMPARISON_LEDGER"

_SUFFIX = ".jsonl"
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger.

    `sending` and then `sent` or `refused` come from a client, `start` and `finish` from a task, `ready`
    from a worker (its id is the worker's name), `fault` and `note` from the scenario, `dead` where it
    has found a task among the dead letters, and `withdrawn` where a task is not to run any more, such as
    one that is revoked or expires. `process` is a
    process id, `text` what a reader should know (the error of a refusal, the name of a fault), and
    `again` whether the broker said that this message had been delivered before.
    """

    kind: Kind
    id: str
    time: float
    process: int
    text: str = ""
    again: bool = False

    def line(self) -> bytes:
        """Return the event as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


def parse(line: bytes) -> Event | None:
    """Return the event of a line, none for a line that was cut off when its writer was killed."""
    try:
        fields = json.loads(line)
        return Event(**fields) if fields["kind"] in KINDS else None
    except (ValueError, TypeError, KeyError):
        return None


class OwnFile:
    """A file in a folder that one process alone appends to; a forked child has one of its own.

    It is made by the first line, and by the first after `close`.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix
        self._process = 0
        self._file = -1

    def append(self, line: bytes) -> None:
        """Append a line in one write. Raises `OSError`, also where there was room for a part of it only."""
        process = os.getpid()
        if process != self._process:
            path = self._folder / f"{process}-{secrets.token_hex(4)}{self._suffix}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._process = process
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, "no room for a line of the ledger")

    def close(self) -> None:
        """Close it, in the process that has opened it."""
        if self._process == os.getpid():
            os.close(self._file)
        self._process = 0


class NewLines:
    """The lines that the files of a folder have got since the last look. One thread looks."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix
        self._read: dict[Path, int] = {}

    def __iter__(self) -> Iterator[bytes]:
        for path in self._folder.glob(f"*{self._suffix}"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            # A line that its writer was killed over has no end, and is none.
            complete = data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(complete)
            yield from complete.splitlines()


class Recorder:
    """One process's way to the ledger; survives a fork, where the child gets a file of its own.

    Raises `OSError` where the folder or the collector cannot be reached, or a line not be written: a run
    without its ledger would prove nothing.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._file = None if target.startswith("tcp://") else OwnFile(Path(target), _SUFFIX)
        self._process = 0
        self._socket: socket.socket | None = None
        # Another thread may hold the lock when a child is made, and is not there to give it back.
        os.register_at_fork(after_in_child=self._new_lock)

    def _new_lock(self) -> None:
        self._lock = threading.Lock()

    def record(self, kind: Kind, id_: str, text: str = "", again: bool = False) -> Event:
        """Write one event down, now, and return it."""
        event = Event(kind, id_, time.monotonic(), os.getpid(), text, again)
        line = event.line()
        with self._lock:
            if self._file is not None:
                self._file.append(line)
            else:
                self._connected(event.process).sendall(line)
        return event

    def close(self) -> None:
        """Close the file or the connection; the next event opens another."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            if self._socket is not None:
                self._socket.close()
            self._process, self._socket = 0, None

    def _connected(self, process: int) -> socket.socket:
        if self._socket is None or self._process != process:
            where = urlsplit(self._target)
            address = (where.hostname or "127.0.0.1", where.port or 0)
            self._socket, self._process = socket.create_connection(address, _CONNECT_SECONDS), process
        return self._socket


class Ledger:
    """The reader's side: all events of a folder, in the order of their times. One thread reads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lines = NewLines(folder, _SUFFIX)
        self._events: list[Event] = []
        self._recorder = Recorder(str(folder))

    def events(self) -> list[Event]:
        """Return every event so far."""
        new = [event for event in map(parse, self._lines) if event is not None]
        if new:
            self._events = sorted([*self._events, *new], key=lambda event: event.time)
        return self._events

    def of(self, *kinds: Kind) -> list[Event]:
        """Return the events of these kinds, in order."""
        return [event for event in self.events() if event.kind in kinds]

    def ids(self, *kinds: Kind) -> set[str]:
        """Return the ids that have an event of one of these kinds."""
        return {event.id for event in self.of(*kinds)}

    def close(self) -> None:
        """Close what it writes to; it can still be read, and written to again."""
        self._recorder.close()

    def note(self, text: str, *, fault: bool = False) -> Event:
        """Write down what the scenario does, so that the timeline shows it."""
        return self._recorder.record("fault" if fault else "note", "", text)

    def dead(self, id_: str, reason: str) -> Event:
        """Write down that a task was found among the dead letters."""
        return self._recorder.record("dead", id_, reason)

    def withdrawn(self, ids: Iterable[str], why: str) -> None:
        """Write down that these tasks are not to run any more, so that none counts as lost."""
        for id_ in ids:
            self._recorder.record("withdrawn", id_, why)


class Collector:
    """Takes lines over a socket and appends them to files of a ledger's folder.

    `with Collector(folder, "0.0.0.0") as collector:` and give `collector.url(host)` to the processes.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._connections: list[socket.socket] = []
        connections = self._connections

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                path = folder / f"remote-{secrets.token_hex(6)}{_SUFFIX}"
                with path.open("ab", buffering=0) as file:
                    for line in self.rfile:
                        file.write(line)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, address = super().get_request()
                connections.append(connection)
                return connection, address

        self._server = Server((host, 0), Connection)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, host: str = "127.0.0.1") -> str:
        """Return the value of `COMPARISON_LEDGER` for processes that reach us at `host`."""
        return f"tcp://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write down what has been sent by now, and end."""
        self._server.shutdown()
        while select.select([self._server], [], [], 0)[0]:
            self._server.handle_request()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                # What has arrived is still read, then comes the end.
                connection.shutdown(socket.SHUT_RD)
        self._server.server_close()


def recorder(environ: Mapping[str, str] = os.environ) -> Recorder:
    """Return the recorder of this process. Raises `KeyError` where the environment names no ledger."""
    return Recorder(environ[VARIABLE])
