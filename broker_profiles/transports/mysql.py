"""The leased store in MySQL 8 or MariaDB 10.6, and the transport over it.

Reserving is a transaction of two round trips: statements that do not need each other's results travel
together. MySQL has no way to wake who waits, so they look, less and less often while nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from broker_profiles.errors import StoreError
from broker_profiles.transports import leased
from broker_profiles.transports.sql_pymysql import MySQLDriver
from broker_profiles.transports.sql_queues import marks, rows
from broker_profiles.transports.sql_schema import CONSUMERS, LEASED, MESSAGES, PREFIX, QUEUES, READY
from broker_profiles.transports.sql_store import BATCH, Row, SQLStore
from broker_profiles.transports.store import Outgoing, Receipt

# Neither the session's time zone nor the end of summer time changes this.
_NOW = "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(3)) DIV 1000)"

#: How often `wait` looks, in seconds: at first, and after it has waited in vain for a while.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.05

#: The most rows of one INSERT.
_ROWS = 500

#: The bytes that a literal writes as two.
_ESCAPED = [bytes([byte]) for byte in b"\0\n\r\x1a\"'\\"]

_DUE = (
    f"SELECT id FROM {MESSAGES} FORCE INDEX ({PREFIX}due) WHERE due <= {_NOW} "
    f"ORDER BY due LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
)
_NOT_EMPTY = (
    f"SELECT name FROM {QUEUES} q WHERE name IN (%s) AND EXISTS "
    f"(SELECT 1 FROM {MESSAGES} FORCE INDEX ({PREFIX}ready) WHERE queue = q.id AND state = {READY})"
)
_READY = (
    f"SELECT id, token + 1, deliveries + 1, place, coalesce(expires <= {_NOW}, FALSE), body "
    f"FROM {MESSAGES} FORCE INDEX ({PREFIX}ready) "
    f"WHERE queue = (SELECT id FROM {QUEUES} WHERE name = %s) AND state = {READY} "
    "ORDER BY place, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
_LEASE = (
    f"UPDATE {MESSAGES} SET state = {LEASED}, consumer = %s, "
    "token = token + 1, deliveries = deliveries + 1 WHERE id IN"
)


class MySQLStore(SQLStore):
    """A `Store` in a database of MySQL or MariaDB; see the interface for what each method promises."""

    system = "mysql"
    driver_class = MySQLDriver
    now = _NOW

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        driver = self._session.driver
        assert isinstance(driver, MySQLDriver)
        self._driver = driver
        self._pause = _FIRST_LOOK

    @staticmethod
    def or_nothing(column: str) -> str:
        """Return MySQL's way of inserting only what is not there; INSERT IGNORE would ignore more."""
        return f"ON DUPLICATE KEY UPDATE {column} = {column}"

    @staticmethod
    def delete_some(where: str, limit: int) -> str:
        """Return MySQL's way of a bounded DELETE."""
        return f"DELETE FROM {MESSAGES} WHERE {where} LIMIT {limit}"

    def version(self) -> str:
        """Return the version of the server."""
        return str(self._query("SELECT version()")[0][0])

    # -- publishing -------------------------------------------------------------------------------

    def _check(self, messages: Sequence[Outgoing]) -> None:
        super()._check(messages)
        for message in messages:
            if _length(message.body) + 1000 > self._driver.largest:
                problem = (
                    f"a message of {len(message.body):,} bytes is too large for the server's "
                    f"max_allowed_packet of {self._driver.largest:,.0f} bytes; make that larger"
                )
                raise StoreError(store=self._driver, problem=problem)

    def _insert_many(self, cursor: Any, messages: Sequence[tuple[Any, ...]]) -> None:
        some: list[tuple[Any, ...]] = []
        length = 0
        for message in messages:
            size = 2 * len(message[-1]) + 200
            if some and (len(some) == _ROWS or length + size > self._driver.largest / 2):
                _insert(cursor, some)
                some, length = [], 0
            some.append(message)
            length += size
        _insert(cursor, some)

    # -- consuming --------------------------------------------------------------------------------

    def _delete(self, cursor: Any, receipts: Sequence[Receipt]) -> None:
        cursor.execute(*_deletion(receipts))

    def _take(
        self,
        cursor: Any,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt],
    ) -> list[Row]:
        deletion, values = _deletion(acknowledge) if acknowledge else ("", [])
        until = f"{_NOW} + {self._lease}"
        begin = (f"START TRANSACTION; {deletion}; " if acknowledge else "START TRANSACTION; ") + (
            f"INSERT INTO {CONSUMERS} (name, until) SELECT %s, {until} FROM dual WHERE NOT EXISTS "
            f"(SELECT 1 FROM {CONSUMERS} WHERE name = %s AND until > {_NOW} + {self._lease // 2}) "
            f"ON DUPLICATE KEY UPDATE until = {until}; {_DUE}"
        )
        values += [consumer, consumer]
        if len(queues) == 1:
            *_, due, ready = _results(cursor, f"{begin}; {_READY}", (*values, queues[0], limit))
        else:
            look = _NOT_EMPTY % marks(queues)
            *_, due, ready = _results(cursor, f"{begin}; {look}", (*values, *queues))
        if due:
            ids = [row[0] for row in due]
            cursor.execute(
                f"UPDATE {MESSAGES} SET state = {READY}, due = NULL WHERE id IN ({marks(ids)})", ids
            )
        taken: list[Row] = []
        if len(queues) == 1 and not due:
            taken = [Row(queues[0], *row) for row in ready]
        else:
            known = set(queues) if due else {name for (name,) in ready}
            for queue in queues:
                if queue in known and len(taken) < limit:
                    found = rows(cursor, _READY, (queue, limit - len(taken)))
                    taken += [Row(queue, *row) for row in found]
        if taken:
            leased_now = (consumer, *(row.id for row in taken))
            _results(cursor, f"{_LEASE} ({marks(taken)}); COMMIT", leased_now)
        else:
            cursor.execute("COMMIT")
        return taken

    def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Look, less and less often, also from one call to the next while nothing is found."""
        deadline = time.monotonic() + timeout
        while True:
            ready, due = self._looked(queues)
            left = min(deadline - time.monotonic(), due)
            if ready:
                self._pause = _FIRST_LOOK
            if ready or left <= 0:
                return
            time.sleep(min(self._pause, left))
            self._pause = min(self._pause * 1.2, _LAST_LOOK)


def _results(cursor: Any, sql: str, values: Any) -> list[Any]:
    """Run several statements in one round trip; return the rows of each."""
    cursor.execute(sql, values)
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall())
    return results


def _deletion(receipts: Sequence[Receipt]) -> tuple[str, list[Any]]:
    ids = [receipt.message for receipt in receipts]
    pairs = ", ".join(["(%s, %s)"] * len(receipts))
    values: list[Any] = [*ids]
    for receipt in receipts:
        values += (receipt.message, receipt.token)
    # The ids alone decide what is read; not every server does that for pairs.
    where = f"id IN ({marks(ids)}) AND state = {LEASED} AND (id, token) IN ({pairs})"
    return f"DELETE FROM {MESSAGES} WHERE {where}", values


def _insert(cursor: Any, messages: Sequence[tuple[Any, ...]]) -> None:
    each = ", ".join([f"(%s, %s, %s, {_NOW} + %s, {_NOW} + %s, %s)"] * len(messages))
    cursor.execute(
        f"INSERT INTO {MESSAGES} (queue, place, state, due, expires, body) VALUES {each}",
        [value for message in messages for value in message],
    )


def _length(body: bytes) -> int:
    """Return how long a body is as a literal."""
    return len(body) + sum(body.count(byte) for byte in _ESCAPED)


class Transport(leased.Transport):
    """Celery's messages in MySQL or MariaDB."""

    store_class = MySQLStore
    driver_type = "leased-mysql"
    driver_name = "pymysql"

    def default_url(self) -> str:
        """Return a database on this machine."""
        return "mysql://celery@localhost:3306/celery"
