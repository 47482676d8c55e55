"""One SQLite file that many processes share: opening, transactions, forks, and errors in our words.

Write-ahead logging lets readers and one writer work at a time. Waiting for another writer is done here
rather than by SQLite's busy handler, whose pauses grow to 100 ms: a lock is held for well under a
millisecond, so short random pauses find the gap sooner.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from broker_profiles.errors import (
    NotOurStore,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from broker_profiles.transports.forks import forks

#: In the header of every file of ours ("BrPr"), so that no other file is taken for one.
APPLICATION_ID = 0x42725072

#: A name for a database inside this process.
IN_MEMORY = ":memory:"

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.005

# SQLite keeps its own locks and its picture of the file's locks in the memory of the process. A child that
# inherits them while another thread is inside SQLite waits for ever, or finds the file locked for ever; so a
# fork waits until no thread is, and finds every file closed. The parent opens them again when next needed.
_inside = threading.RLock()
_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
# Every open connection, and whose it is. Were it nowhere else, the garbage collector would close that of a
# file which nobody has any more, and no fork waits for that.
_owners: dict[sqlite3.Connection, weakref.ref[SQLiteFile]] = {}
# Held to make a file, to close a connection and to fork; taken after `_inside`, where both are. Of its own:
# who opens a file that is locked is inside for seconds, and others make and close theirs meanwhile.
_listing = threading.RLock()


def _close(connection: sqlite3.Connection) -> None:
    """Close a connection; `_listing` is held."""
    _owners.pop(connection, None)
    connection.close()


def _close_forgotten(_: object = None) -> None:
    """Close what belongs to files that are gone.

    The garbage collector calls this at any point of any thread, which may hold a lock that a fork takes next;
    so it does not wait. What is left is closed when the next file is opened, or before the next fork.
    """
    listing = _listing
    if listing.acquire(blocking=False):
        try:
            # A list of the keys: making pairs may start a collection, which changes the dictionary meanwhile.
            for connection in list(_owners):
                owner = _owners.get(connection)
                if owner is not None and owner() is None:
                    _close(connection)
        finally:
            listing.release()


def _before_fork() -> None:
    _inside.acquire()
    _listing.acquire()
    files = list(_files)  # kept, so that from here on none is forgotten
    for file in files:
        if not file.in_memory:
            file.close()
    _close_forgotten()


def _after_fork_in_parent() -> None:
    _listing.release()
    _inside.release()


def _after_fork_in_child() -> None:
    global _inside, _listing
    _inside, _listing = threading.RLock(), threading.RLock()
    for file in list(_files):
        file.lock = threading.RLock()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


class SQLiteFile:
    """A connection to one file. Use from any thread, one at a time; after a fork it opens itself anew."""

    def __init__(self, path: str, schema: str, *, timeout: float, synchronous: str) -> None:
        self.path = path
        self._schema = schema
        self._timeout = timeout
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._generation = forks()
        self._inode = 0
        self._commits = 0
        self.lock = threading.RLock()
        with _listing:
            _files.add(self)

    @property
    def in_memory(self) -> bool:
        """Whether it is a database inside this process."""
        return self.path == IN_MEMORY

    def __str__(self) -> str:
        return "the in-memory store" if self.in_memory else f"the SQLite file {self.path}"

    def twin(self) -> SQLiteFile:
        """Return another connection to the same file; in memory there is only one, which is shared."""
        if self.in_memory:
            return self
        return SQLiteFile(self.path, self._schema, timeout=self._timeout, synchronous=self._synchronous)

    # -- opening ----------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection of this process. Raises `StoreBusy`."""
        with self._turn() as deadline:
            return self._opened(deadline)

    def _opened(self, deadline: float) -> sqlite3.Connection:
        connection = self._connection  # once: another thread may close it
        if connection is not None and self._generation == forks():
            return connection
        inside = _inside
        if not inside.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreBusy(store=self, seconds=self._timeout)
        try:
            return self._open(deadline)
        finally:
            inside.release()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self.close()  # of one in memory, the connection that was inherited over a fork
        _close_forgotten()
        with self.translated():
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self.translated():
                self._prepare(connection, deadline)
        except BaseException:
            connection.close()
            raise
        _owners[connection] = weakref.ref(self, _close_forgotten)
        self._connection, self._generation = connection, forks()
        self._inode = 0 if self.in_memory else Path(self.path).stat().st_ino
        return connection

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        def run(sql: str) -> Any:
            return self._patiently(lambda: connection.execute(sql).fetchone(), deadline)

        owner = run("PRAGMA application_id")[0]
        if owner != APPLICATION_ID:
            if owner or run("SELECT count(*) FROM sqlite_master")[0]:
                raise NotOurStore(store=self, problem="it is the database of another program")
            run(f"PRAGMA application_id = {APPLICATION_ID}")
        if not self.in_memory:
            run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {self._synchronous}")
        run("PRAGMA temp_store = MEMORY")
        run("BEGIN IMMEDIATE")
        for statement in self._schema.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")

    def check_still_there(self) -> None:
        """Raise `StoreUnavailable` if the file was deleted or replaced under this connection."""
        if self.in_memory or not self._inode:
            return
        try:
            inode = os.stat(self.path).st_ino  # noqa: PTH116 - Path costs three times as much
        except OSError:
            inode = -1
        if inode != self._inode:
            self._inode = 0
            self.close()
            raise StoreUnavailable(store=self, problem="the file was deleted or replaced")

    def close(self) -> None:
        """Close the connection of this process, if it has one. Waits for no lock of the file."""
        with _listing:
            connection, self._connection = self._connection, None
            if connection is not None:
                _close(connection)

    # -- work -------------------------------------------------------------------------------------

    def changes(self) -> int:
        """Return a number that differs once anybody else has committed (in memory: anybody at all)."""
        if self.in_memory:
            return self._commits
        return int(self.read("PRAGMA data_version")[0][0])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one write transaction: all of it is committed, or nothing."""
        with self._turn() as deadline:
            connection = self._patiently(lambda: self._begin(deadline), deadline)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                _inside.release()
            self._commits += 1

    def _begin(self, deadline: float) -> sqlite3.Connection:
        """Begin a write transaction; no fork comes between it and its end."""
        _inside.acquire()
        try:
            connection = self._opened(deadline)
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            _inside.release()
            raise
        return connection

    def write(self, sql: str, values: tuple[Any, ...]) -> int:
        """Run one statement as its own transaction; return how many rows it changed."""
        with self._turn() as deadline:
            changed: int = self._patiently(
                lambda: self._opened(deadline).execute(sql, values).rowcount, deadline
            )
            self._commits += 1
            return changed

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Run one query and return its rows."""
        with self._turn() as deadline:
            rows: list[Any] = self._patiently(
                lambda: self._opened(deadline).execute(sql, values).fetchall(), deadline
            )
            return rows

    @contextlib.contextmanager
    def _turn(self) -> Iterator[float]:
        """Keep other threads off this connection for the block, which gets the time until when to wait.

        Waiting for other threads, which may wait for the file, counts. Raises `StoreBusy`, and what SQLite
        raises inside the block as one of our errors: a second block for that would cost a microsecond each.
        """
        # A forked child has another lock; this one is given back as it was taken.
        deadline, lock = time.monotonic() + self._timeout, self.lock
        if not lock.acquire(timeout=self._timeout):
            raise StoreBusy(store=self, seconds=self._timeout)
        try:
            yield deadline
        except sqlite3.Error as error:
            raise self._ours(error) from error
        finally:
            lock.release()

    def _patiently(self, action: Callable[[], Any], deadline: float) -> Any:
        """Try again while another process holds the lock, up to the deadline. Raises `StoreBusy`."""
        inside, longest = _inside, _SHORTEST_PAUSE
        while inside.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
            finally:
                inside.release()
            if time.monotonic() > deadline:
                break
            longest = min(longest * 1.5, _LONGEST_PAUSE)
            time.sleep(random.uniform(_SHORTEST_PAUSE, longest))
        raise StoreBusy(store=self, seconds=self._timeout)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Raise what SQLite raises inside the block as one of our errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._ours(error) from error

    def _ours(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(store=self, problem=error)
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return StoreReadOnly(store=self, problem=error)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return NotOurStore(store=self, problem=error)
        if _is_busy(error):
            return StoreBusy(store=self, seconds=self._timeout)
        return StoreUnavailable(store=self, problem=error)


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
