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
from broker_profiles.transports.store import Outgoing, Receipt, Step

# Neither the session's time zone nor the end of summer time changes this.
_NOW = "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(3)) DIV 1000)"

#: How often `wait` looks, in seconds: at first, and after it has waited in vain for a while.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.08

#: The most rows of one INSERT.
_ROWS = 500

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
        self._waited: tuple[str, ...] = ()
        self._next_look = 0.0
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
            if _size(message.body) > self._driver.largest:
                problem = (
                    f"a message of {len(message.body):,} bytes needs a max_allowed_packet of twice that on "
                    f"the server, and it is {self._driver.largest:,.0f}"
                )
                raise StoreError(store=self._driver, problem=problem)

    def _insert_many(self, cursor: Any, messages: Sequence[tuple[Any, ...]]) -> None:
        some: list[tuple[Any, ...]] = []
        length = 0
        for message in messages:
            size = _size(message[-1])
            if some and (len(some) == _ROWS or length + size > self._driver.largest / 2):
                _insert(cursor, some)
                some, length = [], 0
            some.append(message)
            length += size
        _insert(cursor, some)

    def _step(self, cursor: Any, step: Step, messages: Sequence[Outgoing]) -> bool:
        update, values = self._update(step)
        inserts, more = self._inserts(messages, "@stepped = 1")
        sql = "; ".join(["START TRANSACTION", update, "SET @stepped = row_count()", *inserts, "COMMIT"])
        return bool(_results(cursor, sql, {**values, **more})[1])

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
        taken = self._locked(cursor, queues, limit, acknowledge)
        if not taken:
            cursor.execute("COMMIT")
            return []
        # The lease is looked at last, for this process may have been stopped since it began.
        lease = f"SELECT 1 FROM {CONSUMERS} WHERE name = %s AND until > {_NOW} + {self._lease // 2}"
        sql = f"{_LEASE} ({marks(taken)}) AND EXISTS ({lease}); COMMIT"
        values = (consumer, *(row.id for row in taken), consumer)
        if _results(cursor, sql, values)[0]:
            return taken
        until = f"{_NOW} + {self._lease}"
        cursor.execute(
            f"INSERT INTO {CONSUMERS} (name, until) VALUES (%s, {until}) "
            f"ON DUPLICATE KEY UPDATE until = {until}",
            (consumer,),
        )
        return self._take(cursor, consumer, queues, limit, ())

    def _locked(
        self, cursor: Any, queues: Sequence[str], limit: int, acknowledge: Sequence[Receipt]
    ) -> list[Row]:
        """Begin a transaction, acknowledge, make ready what is due, and lock what is to be leased."""
        deletion, values = _deletion(acknowledge) if acknowledge else ("DO 0", [])
        begin = f"START TRANSACTION; {deletion}; {_DUE}"
        alone = len(queues) == 1
        look = _READY if alone else _NOT_EMPTY % marks(queues)
        values += (queues[0], limit) if alone else queues
        *_, due, ready = _results(cursor, f"{begin}; {look}", values)
        if due:
            ids = [row[0] for row in due]
            cursor.execute(
                f"UPDATE {MESSAGES} SET state = {READY}, due = NULL WHERE id IN ({marks(ids)})", ids
            )
        elif alone:
            return [Row(queues[0], *row) for row in ready]
        wanted = queues if due else [queue for queue in queues if (queue,) in ready]
        taken: list[Row] = []
        for queue in wanted:
            if len(taken) < limit:
                found = rows(cursor, _READY, (queue, limit - len(taken)))
                taken += [Row(queue, *row) for row in found]
        return taken

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Look, less and less often, also from one call to the next, while nothing is found."""
        deadline = time.monotonic() + timeout
        names = tuple(sorted(queues))
        if names != self._waited:
            self._waited, self._next_look, self._pause = names, 0.0, _FIRST_LOOK
        while True:
            now = time.monotonic()
            if now >= self._next_look:
                ready, due = self._looked(queues)
                if ready:
                    self._next_look, self._pause = 0.0, _FIRST_LOOK
                    return True
                self._next_look = now + min(self._pause, due)
                self._pause = min(self._pause * 1.2, _LAST_LOOK)
            time.sleep(max(0.0, min(self._next_look, deadline) - time.monotonic()))
            if time.monotonic() >= deadline:
                return False


def _results(cursor: Any, sql: str, values: Any) -> list[Any]:
    """Run several statements in one round trip; return the rows of each, or how many it matched."""
    cursor.execute(sql, values)
    results = []
    while True:
        results.append(cursor.fetchall() if cursor.description else cursor.rowcount)
        if not cursor.nextset():
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


def _size(body: bytes) -> int:
    """Return how many bytes a statement with this body may have: the driver writes it in hexadecimal."""
    return 2 * len(body) + 1500


class Transport(leased.Transport):
    """Celery's messages in MySQL or MariaDB."""

    store_class = MySQLStore
    driver_type = "leased-mysql"
    driver_name = "pymysql"

    def default_url(self) -> str:
        """Return a database on this machine."""
        return "mysql://celery@localhost:3306/celery"
