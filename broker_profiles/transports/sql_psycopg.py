"""psycopg as the SQL session uses it: connecting, bounding every wait, what its errors mean."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg.types.numeric import Int8BinaryDumper

from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from broker_profiles.transports.sql_session import Driver

#: Classes of errors, or single ones, by the beginning of their SQLSTATE.
_CONFLICT = ("40001", "40P01")
_FULL = ("53100", "53200")
_DENIED = ("28", "3D000", "42501", "0LP01")
# Connections, resources, shutdown, a cancelled statement, a lock not granted, a standby that only reads.
_AWAY = ("08", "53", "57", "55P03", "25006", "XX", "58", *_CONFLICT)

#: A refused login has no SQLSTATE in libpq, only its words.
_DENIED_WORDS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "authentication failed",
    "permission denied",
    "server does not support SSL",
    "certificate verify failed",
    "does not match host name",
    "root certificate file",
)

#: The plan of each statement is known: by its index, message by message. Without this a statement that
#: was planned while the table was empty would read all of it once it is full.
_PLANS = (
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; "
    "SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan"
)


class _NoAnswer(psycopg.OperationalError):
    """The server did not answer in time."""


class _Connection(psycopg.Connection[Any]):
    """A connection whose calls end at a deadline, also when the server is frozen."""

    deadline = math.inf
    notified = False

    def wait(self, gen: Any, interval: float = 0.1, *arguments: Any, **options: Any) -> Any:
        """Wait as psycopg does, but not beyond the deadline."""
        return super().wait(self._in_time(gen), interval, *arguments, **options)

    def _in_time(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= self.deadline:
                    # Nothing more can be read from it, and nothing has to be said to it.
                    self.pgconn.finish()
                    raise _NoAnswer("it did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as stop:
            return stop.value


class PostgreSQLDriver(Driver):
    """How to reach a PostgreSQL server."""

    title = "PostgreSQL"
    dialect = "postgresql+psycopg"
    error = psycopg.Error

    def connect(self, *, autocommit: bool = True) -> Any:
        """Return a connection in autocommit mode; what the address says comes first."""
        milliseconds = max(1, round(self.timeout * 1000))
        connection = _Connection.connect(
            **{
                # libpq takes whole seconds, and 1 for 2.
                "connect_timeout": max(2, math.ceil(self.timeout)),
                "tcp_user_timeout": milliseconds,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "application_name": "broker-profiles",
                **self.arguments(),
            },
            autocommit=True,
        )
        connection.deadline = time.monotonic() + self.timeout
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        connection.execute(
            f"SET statement_timeout = {milliseconds}; "
            f"SET idle_in_transaction_session_timeout = {milliseconds}; "
            "SET default_transaction_isolation = 'read committed'; "
            "SET client_min_messages = error; "
            # A message has to be on disk when delay() returns, whatever is the rule for other programs.
            "SELECT set_config('synchronous_commit', 'on', false) "
            f"WHERE current_setting('synchronous_commit') = 'off'; {_PLANS}"
        )
        connection.add_notify_handler(lambda _: setattr(connection, "notified", True))
        connection.autocommit = autocommit
        return connection

    def cursor(self, connection: Any) -> Any:
        """Return a cursor that takes values in binary, bodies above all."""
        return connection.cursor(binary=True)

    def begin(self, connection: Any) -> bool:
        """Set the deadline of a call; an end of the connection has arrived before we look."""
        connection.deadline = time.monotonic() + self.timeout
        return self._alive(connection, 0)

    def notified(self, connection: Any, seconds: float) -> bool:
        """Wait up to so long for a notification; return whether there was one. Raises `StoreError`."""
        if not connection.notified and not self._alive(connection, seconds):
            raise StoreUnavailable(store=self, problem="it closed the connection")
        notified, connection.notified = connection.notified, False
        return bool(notified)

    @staticmethod
    def _alive(connection: Any, seconds: float) -> bool:
        """Take in what has arrived within so many seconds; return False at the connection's end."""
        if connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        try:
            while poll.poll(math.ceil(seconds * 1000)):
                seconds = 0
                connection.pgconn.consume_input()
                while connection.pgconn.notifies():
                    connection.notified = True
        except psycopg.Error:
            return False
        return True

    def conflicted(self, error: Exception) -> bool:
        """Return whether it is a deadlock or a serialisation failure."""
        return getattr(error, "sqlstate", None) in _CONFLICT

    def lacks_table(self, error: Exception) -> bool:
        """Return whether a table is missing."""
        return isinstance(error, psycopg.errors.UndefinedTable)

    def translate(self, error: Exception) -> StoreError:
        """Return the error by its SQLSTATE, and by its words where it has none."""
        text = "; ".join(str(error).split("\n")) or type(error).__name__
        state = getattr(error, "sqlstate", None) or ""
        if state == "57014":
            text = f"it did not finish within {self.timeout:g} s"
        if state.startswith(_FULL):
            return StoreFull(store=self, problem=text)
        if "certificate verify failed" in text:
            text += "; name the authority in sslrootcert in the address"
        denied = state.startswith(_DENIED) if state else any(word in text for word in _DENIED_WORDS)
        if denied:
            return StoreDenied(store=self, problem=text)
        if state.startswith(_AWAY) or (not state and isinstance(error, psycopg.OperationalError)):
            return StoreUnavailable(store=self, problem=text)
        return StoreError(store=self, problem=text)
