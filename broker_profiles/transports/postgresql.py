"""The leased store in PostgreSQL 13 or later, and the transport over it.

Acknowledging and reserving are one statement. Who waits is woken by NOTIFY, which the publisher sends
after its message is committed and not within that transaction: the lock it takes would make all
committing publishers wait for each other's disk. It is not sent more often than every `_QUIET` seconds
for a queue; in exchange, those who wait look by themselves until that time is over. They also look when
they have heard nothing for a while: over a half-open connection nothing would ever come, no error either.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Collection, Sequence
from typing import Any

from broker_profiles.errors import StoreError
from broker_profiles.transports import leased
from broker_profiles.transports.sql_psycopg import PostgreSQLDriver
from broker_profiles.transports.sql_queues import rows
from broker_profiles.transports.sql_schema import CONSUMERS, LEASED, MESSAGES, PREFIX, QUEUES, READY
from broker_profiles.transports.sql_store import BATCH, Row, SQLStore
from broker_profiles.transports.store import Outgoing, Receipt, Step

_NOW = "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

#: The channel of all queues, and the shortest time between two notifications of one publisher, in seconds.
_ANY_QUEUE = PREFIX.rstrip("_")
_QUIET = 0.05

#: How long those who wait also look by themselves after a notification, and how often, in seconds.
_LOOKING = 2 * _QUIET
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.02

#: The longest that only notifications are waited for, in seconds, without asking the server anything.
_SILENCE = 2.0

#: The most queues whose last notification is remembered.
_REMEMBERED = 1000

_DELETE = f"""
DELETE FROM {MESSAGES} m USING unnest(%(ids)b::bigint[], %(tokens)b::bigint[]) AS r (id, token)
WHERE m.id = r.id AND m.token = r.token AND m.state = {LEASED}"""

# The parts of one statement see the same snapshot, so what has become due is not among the ready ones
# yet: then nothing is leased, and the statement is to be run again.
_TAKE = f"""
WITH settled AS ({_DELETE}),
due AS MATERIALIZED (
    SELECT id FROM {MESSAGES} WHERE due <= {_NOW} ORDER BY due LIMIT %(batch)s FOR UPDATE SKIP LOCKED),
promoted AS (
    UPDATE {MESSAGES} m SET state = {READY}, due = NULL FROM due WHERE m.id = due.id RETURNING 1),
lease AS (
    INSERT INTO {CONSUMERS} (name, until) SELECT %(consumer)s::text, {_NOW} + %(lease)s::bigint
    WHERE NOT EXISTS (
        SELECT 1 FROM {CONSUMERS} WHERE name = %(consumer)s::text AND until > {_NOW} + %(lease)s::bigint / 2)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until),
ready AS MATERIALIZED (
    SELECT m.id, q.turn FROM (
        SELECT q.id, w.turn FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS w (name, turn)
        JOIN {QUEUES} q ON q.name = w.name ORDER BY w.turn) AS q
    CROSS JOIN LATERAL (
        SELECT id FROM {MESSAGES} WHERE queue = q.id AND state = {READY}
        ORDER BY place, id LIMIT %(limit)s::bigint FOR UPDATE SKIP LOCKED) AS m
    WHERE NOT EXISTS (SELECT 1 FROM due) LIMIT %(limit)s::bigint),
taken AS (
    UPDATE {MESSAGES} m SET state = {LEASED}, consumer = %(consumer)s::text,
        token = m.token + 1, deliveries = m.deliveries + 1
    FROM ready WHERE m.id = ready.id
    RETURNING ready.turn, m.place, m.id, m.token, m.deliveries, coalesce(m.expires <= {_NOW}, FALSE), m.body)
SELECT 0, 0, count(*), 0, 0, FALSE, ''::bytea FROM promoted UNION ALL SELECT * FROM taken"""

_INSERT_MANY = f"""
INSERT INTO {MESSAGES} (queue, place, state, due, expires, body)
SELECT queue, place, state, {_NOW} + delay, {_NOW} + life, body
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bytea[])
WITH ORDINALITY AS w (queue, place, state, delay, life, body, turn) ORDER BY turn"""


class PostgreSQLStore(SQLStore):
    """A `Store` in a PostgreSQL database; see the interface for what each method promises."""

    system = "postgresql"
    driver_class = PostgreSQLDriver
    now = _NOW

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        driver = self._session.driver
        assert isinstance(driver, PostgreSQLDriver)
        self._driver = driver
        self._notified: dict[str, float] = {}
        #: The connection and the queues that are listened to; whether nothing can be ready but by a
        #: notification, and until when that is trusted: the next delayed message, or too long a silence.
        self._listening: tuple[Any, tuple[str, ...]] = (None, ())
        self._nothing = False
        self._next_look = 0.0
        self._looking_until = 0.0
        self._pause = _FIRST_LOOK

    @staticmethod
    def or_nothing(column: str) -> str:
        """Return PostgreSQL's way of inserting only what is not there."""
        return "ON CONFLICT DO NOTHING"

    @staticmethod
    def delete_some(where: str, limit: int) -> str:
        """Return PostgreSQL's way of a bounded DELETE."""
        some = f"SELECT id FROM {MESSAGES} WHERE {where} LIMIT {limit} FOR UPDATE SKIP LOCKED"
        return f"DELETE FROM {MESSAGES} WHERE id IN ({some})"

    def version(self) -> str:
        """Return the version of the server."""
        return str(self._query("SHOW server_version")[0][0])

    def _insert_many(self, cursor: Any, messages: Sequence[tuple[Any, ...]]) -> None:
        cursor.execute(_INSERT_MANY, [list(column) for column in zip(*messages, strict=True)])

    def _step(self, cursor: Any, step: Step, messages: Sequence[Outgoing]) -> bool:
        update, values = self._update(step)
        inserts, more = self._inserts(messages, "EXISTS (SELECT 1 FROM step)")
        parts = [f"step AS ({update} RETURNING 1)"]
        parts += [f"sent{number} AS ({insert})" for number, insert in enumerate(inserts)]
        return bool(rows(cursor, f"WITH {', '.join(parts)} SELECT 1 FROM step", {**values, **more}))

    def _delete(self, cursor: Any, receipts: Sequence[Receipt]) -> None:
        cursor.execute(_DELETE, _arrays(receipts))

    def _take(
        self,
        cursor: Any,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt],
    ) -> list[Row]:
        values: dict[str, Any] = {
            "consumer": consumer,
            "queues": list(queues),
            "limit": limit,
            "lease": self._lease,
            "batch": BATCH,
            **_arrays(acknowledge),
        }
        # No statement that changes rows promises to return them in an order.
        counted, *taken = sorted(rows(cursor, _TAKE, values))
        if counted[2]:
            values |= {"batch": 0, **_arrays(())}
            _, *taken = sorted(rows(cursor, _TAKE, values))
        return [
            Row(queues[turn - 1], id_, token, deliveries, place, expired, body)
            for turn, place, id_, token, deliveries, expired, body in taken
        ]

    # -- waiting ----------------------------------------------------------------------------------

    def _published(self, queues: Collection[str]) -> None:
        """Notify, unless this was done just now; what is stored is not lost if that fails."""
        now = time.monotonic()
        wanted = [queue for queue in queues if now - self._notified.get(queue, -_QUIET) >= _QUIET]
        if not wanted:
            return
        if len(self._notified) >= _REMEMBERED:
            self._notified.clear()
        if self._notify([_channel(queue) for queue in wanted]):
            self._notified.update(dict.fromkeys(wanted, time.monotonic()))

    def _made_ready(self) -> None:
        self._notify([_ANY_QUEUE])

    def _notify(self, channels: list[str]) -> bool:
        with contextlib.suppress(StoreError):
            self._query("SELECT pg_notify(name, '') FROM unnest(%s::text[]) AS c (name)", (channels,))
            return True
        return False

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Listen, then look, so that nothing is missed; look a few times more, then only listen.

        What is known stays known from one call to the next, so that many short waits cost no statement. It
        is looked up again every `_SILENCE` seconds. Raises `StoreError` where there is no answer to that.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._listen(tuple(sorted(queues)))
            now = time.monotonic()
            if not self._nothing or now >= self._next_look:
                ready, due = self._looked(queues)
                self._nothing = not ready and now >= self._looking_until
                self._next_look = now + min(due, _SILENCE)
                if ready:
                    return True
            now = time.monotonic()
            if now >= deadline:
                return False
            left = min(deadline, self._next_look) - now
            if not self._nothing:
                left, self._pause = min(left, self._pause), min(self._pause * 1.5, _LAST_LOOK)
            if self._driver.notified(self._session.connection, max(0.0, left)):
                self._look_for_a_while()

    def _look_for_a_while(self) -> None:
        self._nothing = False
        self._looking_until = time.monotonic() + _LOOKING
        self._pause = _FIRST_LOOK

    def _listen(self, queues: tuple[str, ...]) -> None:
        """Listen for these queues and no others, unless this connection does so already.

        What nobody reads would fill the server's memory, so a full consumer's queue is left out.
        """
        if self._listening == (self._session.connection, queues):
            return
        channels = [_ANY_QUEUE, *map(_channel, queues)]
        sql = "; ".join(["UNLISTEN *", *(f"LISTEN {channel}" for channel in channels)])
        self._session.run(lambda cursor: cursor.connection.execute(sql))
        self._listening = self._session.connection, queues
        self._look_for_a_while()


def _arrays(receipts: Sequence[Receipt]) -> dict[str, list[int]]:
    return {
        "ids": [int(receipt.message) for receipt in receipts],
        "tokens": [int(receipt.token) for receipt in receipts],
    }


def _channel(queue: str) -> str:
    """Return a channel's name: a hash, for names of channels are short and plain."""
    return f"{_ANY_QUEUE}_{hashlib.blake2b(queue.encode(), digest_size=8).hexdigest()}"


class Transport(leased.Transport):
    """Celery's messages in PostgreSQL."""

    store_class = PostgreSQLStore
    driver_type = "leased-postgresql"
    driver_name = "psycopg"

    def default_url(self) -> str:
        """Return a database on this machine."""
        return "postgresql://celery@localhost:5432/celery"
