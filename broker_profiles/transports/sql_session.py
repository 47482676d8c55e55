"""One connection to a SQL database: opening it, forks, repeated transactions, and errors in our words.

Statements go to the driver itself: SQLAlchemy makes the tables, and reads the address.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from broker_profiles.errors import StoreError, StoreUnavailable
from broker_profiles.transports import sql_schema
from broker_profiles.transports.forks import forks

T = TypeVar("T")

#: How often a transaction that others made impossible (a deadlock) is tried again.
_ATTEMPTS = 10
_LONGEST_PAUSE = 0.02

# Connections inherited over a fork: closing one in the child, or letting the garbage collector close
# it, would say goodbye to the server in the name of the parent.
_inherited: list[Any] = []


class Driver(ABC):
    """How to reach one server, and what its driver's errors mean."""

    #: What people call the system, and SQLAlchemy's name of dialect and driver.
    title: ClassVar[str]
    dialect: ClassVar[str]
    #: The root of the driver's exceptions.
    error: ClassVar[type[Exception]]

    def __init__(self, url: str, timeout: float) -> None:
        self.timeout = timeout
        try:
            self.url: URL = make_url(url).set(drivername=self.dialect)
        except (ArgumentError, ValueError):
            # Without the reason, which repeats the address and its password.
            problem = "its address cannot be parsed"
            raise StoreError(store=f"The {self.title} database", problem=problem) from None

    def __str__(self) -> str:
        place = f"{self.url.host or 'localhost'}{f':{self.url.port}' if self.url.port else ''}"
        return f"The {self.title} database {self.url.database or ''} at {place}"

    def arguments(self) -> dict[str, Any]:
        """Return what the address says, as the driver's own arguments."""
        return dict(self.url.get_dialect()().create_connect_args(self.url)[1])

    def check_name(self, name: str, longest: int) -> None:
        """Raise `StoreError` for a name that the tables could not hold."""
        if len(name) > longest or "\0" in name:
            problem = f"the name {name[:40]!r}... is longer than {longest} characters, or holds a NUL"
            raise StoreError(store=self, problem=problem)

    @abstractmethod
    def connect(self, *, autocommit: bool = True) -> Any:
        """Return a new connection with its session set up."""

    @abstractmethod
    def cursor(self, connection: Any) -> Any:
        """Return the cursor that all statements of a connection use."""

    @abstractmethod
    def begin(self, connection: Any) -> bool:
        """Prepare for a call; return whether the connection is still open, without asking the server."""

    @abstractmethod
    def conflicted(self, error: Exception) -> bool:
        """Return whether the transaction was undone because of others, and can be repeated."""

    @abstractmethod
    def lacks_table(self, error: Exception) -> bool:
        """Return whether a table is missing."""

    @abstractmethod
    def translate(self, error: Exception) -> StoreError:
        """Return the error in our words."""


def _cause(error: DBAPIError) -> Exception:
    return error.orig if isinstance(error.orig, Exception) else error


class Session:
    """A connection that opens itself when needed, and again after an error or a fork.

    Use from any thread, one at a time.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._connection: Any = None
        self._cursor: Any = None
        self._generation = forks()
        self._lock = threading.RLock()

    def run(self, work: Callable[[Any], T]) -> T:
        """Return what `work` does with a cursor, repeating it where a deadlock undid it.

        `work` is one statement, or begins and commits one transaction. No other error leads to a
        repetition: where a commit's outcome is unknown, repeating it could store a message twice.
        """
        if self._generation != forks():
            self._abandon()
        with self._lock:
            ends = time.monotonic() + self.driver.timeout
            for attempt in range(1, _ATTEMPTS + 1):
                cursor = self.cursor()
                try:
                    return work(cursor)
                except self.driver.error as error:
                    again = self.driver.conflicted(error) and self._rolled_back(cursor)
                    if not again:
                        self.close()
                    if not again or attempt == _ATTEMPTS or time.monotonic() >= ends:
                        raise self.driver.translate(error) from error
                except BaseException:
                    # A signal's exception, such as a time limit: who knows where the protocol stands.
                    self.close()
                    raise
                time.sleep(random.uniform(0, _LONGEST_PAUSE))
            raise AssertionError("unreachable")

    def transaction(self, work: Callable[[Any], T]) -> T:
        """Return what `work` does with a cursor inside a transaction."""

        def transacted(cursor: Any) -> T:
            cursor.execute("START TRANSACTION")
            result = work(cursor)
            cursor.execute("COMMIT")
            return result

        return self.run(transacted)

    def _rolled_back(self, cursor: Any) -> bool:
        try:
            cursor.execute("ROLLBACK")
        except self.driver.error:
            return False
        return True

    def cursor(self) -> Any:
        """Return the cursor of an open connection. Raises `StoreError`."""
        if self._connection is not None and not self.driver.begin(self._connection):
            self.close()
        if self._connection is None:
            self._open()
        return self._cursor

    @property
    def connection(self) -> Any:
        """The driver's connection, None while this process has none."""
        return self._connection if self._generation == forks() else None

    def _open(self) -> None:
        try:
            connection = self.driver.connect()
        except self.driver.error as error:
            raise self.driver.translate(error) from error
        try:
            cursor = self.driver.cursor(connection)
            if self._version(cursor) != sql_schema.VERSION or self._lacks_added(cursor):
                self._migrate()
        except BaseException as error:
            with contextlib.suppress(self.driver.error):
                connection.close()
            if isinstance(error, self.driver.error):
                raise self.driver.translate(error) from error
            raise
        self._connection, self._cursor = connection, cursor

    def _version(self, cursor: Any) -> int:
        try:
            cursor.execute(f"SELECT version FROM {sql_schema.VERSIONS}")
        except self.driver.error as error:
            if self.driver.lacks_table(error):
                return 0
            raise
        row = cursor.fetchone()
        return int(row[0]) if row else 0

    def _lacks_added(self, cursor: Any) -> bool:
        try:
            for table in sql_schema.ADDED:
                cursor.execute(f"SELECT 1 FROM {table} LIMIT 1")
                cursor.fetchall()
        except self.driver.error as error:
            if self.driver.lacks_table(error):
                return True
            raise
        return False

    def _migrate(self) -> None:
        connect = self.driver.connect
        try:
            sql_schema.migrate(self.driver.dialect, lambda: connect(autocommit=False), self.driver.timeout)
        except DBAPIError as error:
            raise self.driver.translate(_cause(error)) from error
        except TimeoutError as error:
            raise StoreUnavailable(store=self.driver, problem=error) from error
        except sql_schema.NewerSchema:
            problem = "its tables were made by a newer version of broker-profiles; update this one"
            raise StoreError(store=self.driver, problem=problem) from None

    def close(self) -> None:
        """Close the connection of this process, if it has one."""
        if self._generation != forks():
            self._abandon()
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(self.driver.error, OSError):
                connection.close()

    def _abandon(self) -> None:
        """Forget what was inherited over a fork, the lock too, for its holder may not exist here."""
        if self._connection is not None:
            _inherited.append((self._connection, self._cursor))
        self._connection = self._cursor = None
        self._lock = threading.RLock()
        self._generation = forks()
