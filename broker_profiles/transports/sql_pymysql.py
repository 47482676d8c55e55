"""PyMySQL as the SQL session uses it: connecting, bounding every wait, what its errors mean."""

from __future__ import annotations

import math
import select
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from broker_profiles.transports.sql_session import Driver

#: A deadlock, and MariaDB's word for a row that another transaction has changed.
_CONFLICT = frozenset({1213, 1020})
_NO_TABLE = 1146
#: No space (in words, or as the errno of InnoDB), a full table, no memory.
_FULL = frozenset({1021, 1114, 1037, 1041, 3675})
#: Access to the server, a database, a table; an unknown database; no TLS; an expired password.
_DENIED = frozenset({1044, 1045, 1049, 1130, 1142, 1143, 1227, 1370, 1698, 1820, 1862, 2026, 3159, 4151})
#: Too many connections, shutdown, a lock or a statement that took too long, read-only, not to be reached.
_AWAY = frozenset(
    {1040, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1226, 1290, 1317, 1792, 1836, 1927, 1969}
    | {2002, 2003, 2006, 2013, 2055, 3024, *_CONFLICT}
)
_TOO_LONG = frozenset({1205, 1969, 3024})

#: Seconds after which MySQL, which has no limit for an idle transaction, ends an idle connection; so a
#: stopped client's locks are not there for ever. Whoever works again opens another connection.
_IDLE = 60


class MySQLDriver(Driver):
    """How to reach a server of MySQL or MariaDB."""

    title = "MySQL"
    dialect = "mysql+pymysql"
    error = pymysql.err.Error

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout)
        #: The most bytes that one statement may have; known once there is a connection.
        self.largest = math.inf

    def connect(self, *, autocommit: bool = True) -> Any:
        """Return a connection; what the address says comes first."""
        arguments = {
            "charset": "utf8mb4",
            "connect_timeout": self.timeout,
            "read_timeout": self.timeout,
            "write_timeout": self.timeout,
            **self.arguments(),
        }
        arguments["client_flag"] = arguments.get("client_flag", 0) | CLIENT.MULTI_STATEMENTS
        connection: Any = pymysql.connect(**arguments, autocommit=autocommit)
        seconds = max(1, int(self.timeout) - 1)
        if "mariadb" in connection.get_server_info().lower():
            limits = f"max_statement_time = {self.timeout:g}, idle_transaction_timeout = {seconds + 1}"
        else:
            limits = f"max_execution_time = {round(self.timeout * 1000)}, wait_timeout = {_IDLE}"
        with connection.cursor() as cursor:
            # The default isolation locks gaps between rows, which has inserting wait for reserving. The
            # mode of SQL decides how a backslash in a body is read.
            cursor.execute(
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; "
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                f"innodb_lock_wait_timeout = {seconds}, {limits}; "
                "SELECT @@max_allowed_packet"
            )
            while cursor.nextset():
                found = cursor.fetchone()
            assert found is not None
            self.largest = float(found[0])
        return connection

    def cursor(self, connection: Any) -> Any:
        """Return a cursor."""
        return connection.cursor()

    def begin(self, connection: Any) -> bool:
        """Return whether nothing has arrived: between two calls that can only be the connection's end."""
        socket = getattr(connection, "_sock", None)
        if socket is None:
            return False
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        return not poll.poll(0)

    def conflicted(self, error: Exception) -> bool:
        """Return whether it is a deadlock."""
        return _code(error) in _CONFLICT

    def lacks_table(self, error: Exception) -> bool:
        """Return whether a table is missing."""
        return _code(error) == _NO_TABLE

    def translate(self, error: Exception) -> StoreError:
        """Return the error by its number."""
        code = _code(error)
        text = str(error.args[-1]) if error.args else type(error).__name__
        if code in _TOO_LONG:
            text = f"it did not finish within {self.timeout:g} s"
        if code in _FULL or "errno: 28" in text:
            return StoreFull(store=self, problem=text)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return StoreDenied(store=self, problem=f"{text}; name the authority in ssl_ca in the address")
        if code in _DENIED:
            return StoreDenied(store=self, problem=text)
        # An InterfaceError without a number is a connection that is closed.
        if code in _AWAY or isinstance(error, pymysql.err.InterfaceError):
            return StoreUnavailable(store=self, problem=text or "the connection is closed")
        return StoreError(store=self, problem=text)


def _code(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0
