"""The leased store in one SQLite file, and the transport over it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from broker_profiles.settings import sqlite_file
from broker_profiles.transports import leased
from broker_profiles.transports import sqlite_tables as tables
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_records import SQLiteRecords
from broker_profiles.transports.store import (
    DELIVERIES_EXHAUSTED,
    Delivery,
    Outgoing,
    Receipt,
    Sizes,
)

#: How often `wait` looks, in seconds: at first, and after it has waited in vain for a while.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.02


class SQLiteStore(SQLiteRecords):
    """A `Store` in one file; see the interface for what each method promises."""

    system = "sqlite"

    def __init__(self, file: SQLiteFile, lease_seconds: float, delivery_limit: int) -> None:
        self._file = file
        self._lease = int(lease_seconds * 1000)
        self._delivery_limit = delivery_limit

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Open the file of `sqlite:////absolute/path`, creating it and its tables where needed."""
        path = sqlite_file(url)
        file = SQLiteFile(
            path or IN_MEMORY,
            tables.SCHEMA,
            timeout=float(options.get("timeout_seconds", 5.0)),
            synchronous=str(options.get("synchronous", "NORMAL")),
        )
        store = cls(
            file,
            float(options.get("lease_seconds", 15.0)),
            int(options.get("delivery_limit", 5)),
        )
        _ = file.connection
        return store

    def clone(self) -> Self:
        """Return a connection of its own to the same file."""
        return type(self)(self._file.twin(), self._lease / 1000, self._delivery_limit)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def version(self) -> str:
        """Return the version of the SQLite library."""
        return sqlite3.sqlite_version

    # -- messages ---------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Insert the messages in one transaction."""
        now = tables.now_ms()
        if len(messages) == 1:
            # One statement is a transaction by itself, at a third of the cost.
            if not self._file.write(tables.INSERT, tables.row_of(messages[0], now)):
                self.declare(messages[0].queue, expires=None, message_ttl=None)
                self._file.write(tables.INSERT, tables.row_of(messages[0], now))
            self._file.check_still_there()
            return
        for queue in {message.queue for message in messages}:
            if not self.exists(queue):
                self.declare(queue, expires=None, message_ttl=None)
        with self._file.transaction() as connection:
            connection.executemany(tables.INSERT, (tables.row_of(message, now) for message in messages))
        self._file.check_still_there()

    def reserve(
        self,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt] = (),
    ) -> list[Delivery]:
        """Lease messages; a look that takes no lock comes first, so that idle consumers disturb nobody."""
        if not acknowledge and not self._something(queues):
            return []
        now = tables.now_ms()
        found: list[Delivery] = []
        with self._file.transaction() as connection:
            tables.acknowledge(connection, acknowledge)
            tables.promote(connection, now)
            connection.execute("INSERT OR IGNORE INTO consumers VALUES (?, ?)", (consumer, now + self._lease))
            for queue in queues:
                if len(found) >= limit:
                    break
                found += self._take(connection, consumer, queue, limit - len(found), now)
        return found

    def _take(
        self, connection: sqlite3.Connection, consumer: str, queue: str, limit: int, now: int
    ) -> list[Delivery]:
        row = connection.execute("SELECT id FROM queues WHERE name = ?", (queue,)).fetchone()
        if row is None:
            return []
        taken: list[Delivery] = []
        while len(taken) < limit:
            wanted = limit - len(taken)
            rows = connection.execute(tables.RESERVE, (consumer, row[0], wanted)).fetchall()
            for id_, token, deliveries, priority, expires, body in rows:
                if expires is not None and expires <= now:
                    connection.execute("DELETE FROM messages WHERE id = ?", (id_,))
                elif deliveries > self._delivery_limit:
                    detail = f"delivered {deliveries - 1} times and never finished"
                    connection.execute("UPDATE messages SET deliveries = deliveries - 1 WHERE id = ?", (id_,))
                    tables.bury(connection, id_, token, DELIVERIES_EXHAUSTED, detail, now)
                else:
                    receipt = Receipt(id_, token)
                    taken.append(Delivery(queue, body, priority, receipt, deliveries))
            if len(rows) < wanted:
                break
        taken.sort(key=lambda delivery: (-delivery.priority, delivery.receipt.message))
        return taken

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Delete the messages that are still held by these receipts."""
        if receipts:
            with self._file.transaction() as connection:
                tables.acknowledge(connection, receipts)

    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Make the messages ready again; their ids, and so their places, stay."""
        back = 0 if counted else 1
        with self._file.transaction() as connection:
            connection.executemany(
                f"UPDATE messages SET state = {tables.READY}, consumer = NULL, "
                f"deliveries = deliveries - {back} {tables.HELD}",
                map(tables.key_of, receipts),
            )

    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        """Move the messages to the table of dead letters."""
        now = tables.now_ms()
        with self._file.transaction() as connection:
            for receipt in receipts:
                tables.bury(connection, receipt.message, receipt.token, reason, detail, now)

    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        """Extend the lease, and end what has run out."""
        self._file.check_still_there()
        now = tables.now_ms()
        with self._file.transaction() as connection:
            # A lease that has run out and that nobody has ended goes on: nobody else holds anything of it.
            renewed = connection.execute(
                "UPDATE consumers SET until = ? WHERE id = ?", (now + self._lease, consumer)
            ).rowcount
            if not renewed:
                tables.end_consumer(connection, consumer)
                connection.execute("INSERT INTO consumers VALUES (?, ?)", (consumer, now + self._lease))
            connection.executemany(
                "UPDATE queues SET used_at = ? WHERE name = ? AND expires IS NOT NULL",
                ((now, queue) for queue in queues),
            )
            # After its own queues are in use again, which no pause of this worker may remove.
            tables.end_what_ran_out(connection, consumer, now)
        return bool(renewed)

    def forget(self, consumer: str) -> None:
        """Give back what the consumer holds, uncounted, and forget it."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE messages SET deliveries = deliveries - 1 "
                f"WHERE consumer = ? AND state = {tables.LEASED}",
                (consumer,),
            )
            tables.end_consumer(connection, consumer)

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Look at the file's change counter, less and less often while nothing happens."""
        deadline = time.monotonic() + timeout
        look = _FIRST_LOOK
        seen = self._file.changes()
        while not self._something(queues):
            next_due = self._next_due()
            while self._file.changes() == seen:
                left = min(deadline - time.monotonic(), next_due - time.time())
                if left <= 0:
                    break
                time.sleep(min(look, left))
                look = min(look * 1.2, _LAST_LOOK)
            if time.monotonic() >= deadline:
                return False
            seen = self._file.changes()
        return True

    def _something(self, queues: Iterable[str]) -> bool:
        """Return whether a message of these queues is ready, or any message is due."""
        names = tuple(queues)
        marks = ", ".join("?" * len(names))
        ready = self._file.read(
            f"SELECT EXISTS (SELECT 1 FROM messages WHERE state = {tables.DELAYED} AND due <= ?)"
            f" OR EXISTS (SELECT 1 FROM queues JOIN messages ON messages.queue = queues.id"
            f" AND state = {tables.READY} WHERE name IN ({marks}))",
            (tables.now_ms(), *names),
        )
        return bool(ready[0][0])

    def _next_due(self) -> float:
        """Return when the next delayed message is due, in seconds since the epoch."""
        due = self._file.read(f"SELECT min(due) FROM messages WHERE state = {tables.DELAYED}")[0][0]
        return float("inf") if due is None else due / 1000

    # -- queues and bindings ----------------------------------------------------------------------

    def declare(self, queue: str, *, expires: float | None, message_ttl: float | None) -> None:
        """Insert the queue if it is not there; what it was declared with first stays."""
        self._file.write(
            "INSERT OR IGNORE INTO queues (name, expires, message_ttl, used_at) VALUES (?, ?, ?, ?)",
            (queue, tables.milliseconds(expires), tables.milliseconds(message_ttl), tables.now_ms()),
        )

    def exists(self, queue: str) -> bool:
        """Return whether the queue is in the table."""
        return bool(self._file.read("SELECT 1 FROM queues WHERE name = ?", (queue,)))

    def drop(self, queue: str) -> None:
        """Delete the queue, its messages and its bindings."""
        with self._file.transaction() as connection:
            tables.drop_queue(connection, queue)

    def bind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Insert the binding."""
        self._file.write("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?)", (exchange, routing_key, queue))

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Delete the binding."""
        self._file.write(
            "DELETE FROM bindings WHERE exchange = ? AND routing_key = ? AND queue = ?",
            (exchange, routing_key, queue),
        )

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Return the bindings of the exchange."""
        return self._file.read("SELECT routing_key, queue FROM bindings WHERE exchange = ?", (exchange,))

    def sizes(self, queue: str) -> Sizes:
        """Count the rows of the queue by state."""
        counts = dict(
            self._file.read(
                "SELECT state, count(*) FROM messages JOIN queues ON queues.id = messages.queue "
                "WHERE name = ? GROUP BY state",
                (queue,),
            )
        )
        dead = self._file.read("SELECT count(*) FROM dead WHERE queue = ?", (queue,))[0][0]
        return Sizes(
            counts.get(tables.READY, 0), counts.get(tables.DELAYED, 0), counts.get(tables.LEASED, 0), dead
        )

    def purge(self, queue: str) -> int:
        """Delete what nobody holds."""
        return self._file.write(
            f"DELETE FROM messages WHERE state != {tables.LEASED} "
            "AND queue = (SELECT id FROM queues WHERE name = ?)",
            (queue,),
        )


class Transport(leased.Transport):
    """Celery's messages in a SQLite file."""

    store_class = SQLiteStore
    driver_type = "sqlite"
    driver_name = "sqlite3"

    def default_url(self) -> str:
        """Return the file of the embedded profile."""
        return f"sqlite:///{Path('broker-profiles.sqlite3').absolute()}"
