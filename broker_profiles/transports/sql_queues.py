"""The part of the SQL stores that is asked now and then: queues, bindings, sizes, dead letters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar

from broker_profiles.transports.sql_schema import (
    BINDINGS,
    DEAD,
    DELAYED,
    LEASED,
    LONGEST_NAME,
    MESSAGES,
    QUEUES,
    READY,
)
from broker_profiles.transports.sql_session import Session
from broker_profiles.transports.store import PAGE, SHOWN, DeadLetter, Sizes, Store

#: The most rows that one step of clearing up deletes.
BATCH = 5000

HIGHEST_PRIORITY = 9

#: A condition for each state that lets the smallest index answer it.
_IN_STATE = {
    READY: f"state = {READY}",
    DELAYED: f"state = {DELAYED} AND due IS NOT NULL",
    LEASED: f"state = {LEASED} AND consumer IS NOT NULL",
}

_DEAD_LETTERS = (
    f"SELECT id, queue, substring(body, 1, {SHOWN}), {HIGHEST_PRIORITY} - place, reason, detail, deliveries, "
    f"died_at, octet_length(body) FROM {DEAD}"
)

_OF_QUEUE = f"queue = (SELECT id FROM {QUEUES} WHERE name = %s)"


def marks(values: Collection[Any]) -> str:
    """Return a parameter mark for each value, for an IN."""
    return ", ".join(["%s"] * len(values))


def changed(cursor: Any, sql: str, values: Any) -> int:
    """Run a statement and return how many rows it changed."""
    cursor.execute(sql, values)
    return int(cursor.rowcount)


def rows(cursor: Any, sql: str, values: Any = ()) -> list[Any]:
    """Run a query and return its rows."""
    cursor.execute(sql, values)
    return list(cursor.fetchall())


class SQLQueues(Store):
    """Queues, bindings and dead letters in a SQL database."""

    #: The expression for the server's time in milliseconds since the epoch; the same within a statement.
    now: ClassVar[str]

    def __init__(self, session: Session) -> None:
        self._session = session

    @staticmethod
    @abstractmethod
    def or_nothing(column: str) -> str:
        """Return the end of an INSERT that leaves a row with the same key as it is."""

    @staticmethod
    @abstractmethod
    def delete_some(where: str, limit: int) -> str:
        """Return the statement that deletes up to `limit` messages for which `where` holds."""

    def _published(self, queues: Collection[str]) -> None:
        """Wake those who wait for these queues; called when the messages are stored."""

    def _query(self, sql: str, values: Any = ()) -> list[Any]:
        return self._session.run(lambda cursor: rows(cursor, sql, values))

    def _change(self, sql: str, values: Any = ()) -> int:
        return self._session.run(lambda cursor: changed(cursor, sql, values))

    def _in_batches(self, where: str, values: Any) -> int:
        """Delete all messages for which `where` holds, a batch at a time, for each has to be in time."""
        sql, deleted = self.delete_some(where, BATCH), 0
        while True:
            batch = self._change(sql, values)
            deleted += batch
            if batch < BATCH:
                return deleted

    # -- queues -----------------------------------------------------------------------------------

    def declare(self, queue: str, *, expires: float | None, message_ttl: float | None) -> None:
        """Insert the queue, or note that it is in use; what it was declared with first stays."""
        self._session.driver.check_name(queue, LONGEST_NAME)
        known = self._query(f"SELECT expires FROM {QUEUES} WHERE name = %s", (queue,))
        if not known:
            self._change(
                f"INSERT INTO {QUEUES} (name, expires, message_ttl, used_at) "
                f"VALUES (%s, %s, %s, {self.now}) {self.or_nothing('name')}",
                (queue, _milliseconds(expires), _milliseconds(message_ttl)),
            )
        elif known[0][0] is not None:
            self._change(f"UPDATE {QUEUES} SET used_at = {self.now} WHERE name = %s", (queue,))

    def exists(self, queue: str) -> bool:
        """Return whether the queue is in the table."""
        return bool(self._query(f"SELECT 1 FROM {QUEUES} WHERE name = %s", (queue,)))

    def drop(self, queue: str) -> None:
        """Delete the queue, its messages and its bindings; many messages go beforehand, in batches."""
        self.purge(queue)
        self._session.transaction(lambda cursor: drop(cursor, queue, "TRUE"))

    def drop_unused(self) -> None:
        """Delete the queues that nobody has used for the time they were declared with."""
        unused = f"expires IS NOT NULL AND used_at + expires <= {self.now}"
        for (name,) in self._query(f"SELECT name FROM {QUEUES} WHERE {unused}"):
            self._session.transaction(_dropping(name, unused))

    def bind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Insert the binding."""
        binding = (exchange, routing_key, queue)
        for name in binding:
            self._session.driver.check_name(name, LONGEST_NAME)
        known = "exchange = %s AND routing_key = %s AND queue = %s"
        if not self._query(f"SELECT 1 FROM {BINDINGS} WHERE {known}", binding):
            self._change(f"INSERT INTO {BINDINGS} VALUES (%s, %s, %s) {self.or_nothing('queue')}", binding)

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Delete the binding."""
        self._change(
            f"DELETE FROM {BINDINGS} WHERE exchange = %s AND routing_key = %s AND queue = %s",
            (exchange, routing_key, queue),
        )

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Return the bindings of the exchange."""
        return [
            (key, queue)
            for key, queue in self._query(
                f"SELECT routing_key, queue FROM {BINDINGS} WHERE exchange = %s", (exchange,)
            )
        ]

    def sizes(self, queue: str) -> Sizes:
        """Count the rows of the queue by state."""
        counts = [f"SELECT count(*) FROM {MESSAGES} WHERE {_OF_QUEUE} AND {_IN_STATE[s]}" for s in _IN_STATE]
        counts.append(f"SELECT count(*) FROM {DEAD} WHERE queue = %s")
        return Sizes(*self._query(f"SELECT {', '.join(f'({count})' for count in counts)}", (queue,) * 4)[0])

    def purge(self, queue: str) -> int:
        """Delete what nobody holds."""
        return sum(
            self._in_batches(f"{_OF_QUEUE} AND {_IN_STATE[state]}", (queue,)) for state in (READY, DELAYED)
        )

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(
        self, queue: str | None = None, limit: int = PAGE, after: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Return the oldest dead letters."""
        where, values = ("", ()) if queue is None else ("AND queue = %s", (queue,))
        first = after.id if after else 0
        return self._dead_letters(f"id > %s {where} ORDER BY id LIMIT %s", (first, *values, limit))

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Look dead letters up."""
        wanted = _numbers(ids)
        return self._dead_letters(f"id IN ({marks(wanted)}) ORDER BY id", wanted) if wanted else []

    def _dead_letters(self, where: str, values: Sequence[Any]) -> list[DeadLetter]:
        found = self._query(f"{_DEAD_LETTERS} WHERE {where}", values)
        return [
            DeadLetter(id_, name, bytes(body), priority, reason, detail, deliveries, died_at / 1000, size)
            for id_, name, body, priority, reason, detail, deliveries, died_at, size in found
        ]

    def replay(self, ids: Sequence[int | str]) -> int:
        """Insert each as a new message and delete the dead letter, in one transaction."""
        wanted = _numbers(ids)

        def work(cursor: Any) -> dict[int, str]:
            found: dict[int, str] = dict(
                rows(
                    cursor,
                    f"SELECT id, queue FROM {DEAD} WHERE id IN ({marks(wanted)}) ORDER BY id FOR UPDATE",
                    wanted,
                )
            )
            if not found:
                return found
            for queue in sorted(set(found.values())):
                cursor.execute(
                    f"INSERT INTO {QUEUES} (name, used_at) VALUES (%s, {self.now}) {self.or_nothing('name')}",
                    (queue,),
                )
            these = f"({marks(found)})"
            cursor.execute(
                f"INSERT INTO {MESSAGES} (queue, place, state, expires, body) "
                f"SELECT q.id, d.place, {READY}, {self.now} + q.message_ttl, d.body "
                f"FROM {DEAD} d JOIN {QUEUES} q ON q.name = d.queue WHERE d.id IN {these} ORDER BY d.id",
                list(found),
            )
            cursor.execute(f"DELETE FROM {DEAD} WHERE id IN {these}", list(found))
            return found

        replayed = self._session.transaction(work) if wanted else {}
        if replayed:
            self._published(set(replayed.values()))
        return len(replayed)

    def expire_dead_letters(self, queues: Sequence[str], seconds: float, kept: int) -> int:
        """Look without a lock, and discard the first page that is found."""
        # Ids grow with time: the oldest are looked at and no others.
        oldest = f"SELECT id, died_at FROM {DEAD} ORDER BY id LIMIT {PAGE}"
        before = f"SELECT id FROM ({oldest}) AS oldest WHERE died_at < {self.now} - %s"
        removed = self._discard_found(before, (int(seconds * 1000),))
        youngest = f"SELECT id FROM {DEAD} WHERE queue = %s ORDER BY id DESC LIMIT 1 OFFSET %s"
        beyond = f"SELECT id FROM {DEAD} WHERE queue = %s AND id <= ({youngest}) ORDER BY id LIMIT {PAGE}"
        for queue in queues:
            removed = removed or self._discard_found(beyond, (queue, queue, kept))
        return removed

    def _discard_found(self, query: str, values: Sequence[Any]) -> int:
        return self.discard([row[0] for row in self._query(query, values)])

    def discard(self, ids: Sequence[int | str]) -> int:
        """Delete dead letters."""
        wanted = _numbers(ids)
        return self._change(f"DELETE FROM {DEAD} WHERE id IN ({marks(wanted)})", wanted) if wanted else 0


def drop(cursor: Any, queue: str, condition: str) -> None:
    """Delete a queue for which a condition holds, its messages and its bindings, inside a transaction."""
    found = rows(cursor, f"SELECT id FROM {QUEUES} WHERE name = %s AND {condition} FOR UPDATE", (queue,))
    if found or condition == "TRUE":
        cursor.execute(f"DELETE FROM {BINDINGS} WHERE queue = %s", (queue,))
    for row in found:
        for state in _IN_STATE.values():
            cursor.execute(f"DELETE FROM {MESSAGES} WHERE queue = %s AND {state}", tuple(row))
        cursor.execute(f"DELETE FROM {QUEUES} WHERE id = %s", tuple(row))


def _dropping(queue: str, condition: str) -> Callable[[Any], None]:
    return lambda cursor: drop(cursor, queue, condition)


def _numbers(ids: Iterable[int | str]) -> list[int]:
    """Return the ids that can be ids here; a text that is no number names no dead letter."""
    return sorted({int(id_) for id_ in ids if str(id_).isdecimal() and int(id_) < 2**63})


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
