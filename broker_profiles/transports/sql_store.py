"""The leased store in a SQL database: what PostgreSQL and MySQL have in common.

A message is a row, whose state and NULL columns say which index it is found by: ready by (queue, place,
order sent), delayed by due time, leased by consumer. So the cost of each step depends on the messages it
touches and not on how many wait. Acknowledged messages are deleted at once.

No step waits for another consumer's: rows that others have locked are skipped (`SKIP LOCKED`). Where
steps do meet, they take rows in the order of their ids, and a deadlock that remains is repeated.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from broker_profiles.transports import validity
from broker_profiles.transports.sql_leases import put_back
from broker_profiles.transports.sql_marks import SQLMarks, numbered
from broker_profiles.transports.sql_queues import HIGHEST_PRIORITY, marks, rows
from broker_profiles.transports.sql_schema import (
    DEAD,
    DELAYED,
    LEASED,
    LONGEST_NAME,
    MESSAGES,
    QUEUES,
    READY,
)
from broker_profiles.transports.sql_session import Driver, Session
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, Delivery, Outgoing, Receipt

#: The most delayed messages that one step makes ready.
BATCH = 1000


class Row(NamedTuple):
    """A message that was leased just now."""

    queue: str
    id: int
    token: int
    deliveries: int
    place: int
    expired: bool
    body: bytes


class SQLStore(SQLMarks):
    """A `Store` in a SQL database; see the interface for what each method promises."""

    driver_class: ClassVar[type[Driver]]
    #: The INSERT of one message; it inserts nothing where its queue is unknown.
    _insert: ClassVar[str]
    _look: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        now, ends = cls.now, f"{cls.now} + coalesce(%(delay)s, 0) + message_ttl"
        cls._insert = (
            f"INSERT INTO {MESSAGES} (queue, place, state, due, expires, body) "
            f"SELECT id, %(place)s, %(state)s, {now} + %(delay)s, "
            f"coalesce(least({now} + %(expires)s, {ends}), {now} + %(expires)s, {ends}), %(body)s "
            f"FROM {QUEUES} WHERE name = %(queue)s"
        )
        cls._look = (
            f"SELECT EXISTS (SELECT 1 FROM {QUEUES} q JOIN {MESSAGES} m ON m.queue = q.id "
            f"AND m.state = {READY} WHERE q.name IN (%s)), "
            f"(SELECT due FROM {MESSAGES} WHERE due IS NOT NULL ORDER BY due LIMIT 1) - {now}"
        )

    def __init__(self, session: Session, lease_seconds: float, delivery_limit: int) -> None:
        super().__init__(session, lease_seconds)
        self._delivery_limit = delivery_limit

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Connect to the database of the URL, making the tables where needed."""
        driver = cls.driver_class(url, float(options.get("timeout_seconds", 5.0)))
        store = cls(
            Session(driver),
            float(options.get("lease_seconds", 15.0)),
            int(options.get("delivery_limit", 5)),
        )
        store._session.cursor()
        return store

    def clone(self) -> Self:
        """Return a connection of its own to the same database."""
        return type(self)(Session(self._session.driver), self._lease / 1000, self._delivery_limit)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Insert the messages: one as one statement, many in one transaction."""
        names = {message.queue for message in messages}
        self._check(messages)
        while not self._publish(messages):
            for name in names:
                self.declare(name, expires=None, message_ttl=None)
        self._published(names)

    def _check(self, messages: Sequence[Outgoing]) -> None:
        """Refuse what the server could not take. Raises `StoreError`."""
        for message in messages:
            self._session.driver.check_name(message.queue, LONGEST_NAME)

    def _publish(self, messages: Sequence[Outgoing]) -> bool:
        """Insert all; return False, having inserted none, where a queue is unknown."""
        if len(messages) == 1:
            return bool(self._change(self._insert, _values(messages[0])))
        return not messages or self._session.transaction(lambda cursor: self._publish_many(cursor, messages))

    def _publish_many(self, cursor: Any, messages: Sequence[Outgoing]) -> bool:
        names = sorted({message.queue for message in messages})
        known = rows(
            cursor, f"SELECT name, id, message_ttl FROM {QUEUES} WHERE name IN ({marks(names)})", names
        )
        queues = {name: (id_, ttl) for name, id_, ttl in known}
        if len(queues) < len(names):
            return False
        inserted = []
        for message in messages:
            id_, ttl = queues[message.queue]
            values = _values(message)
            lives = [values["expires"], None if ttl is None else (values["delay"] or 0) + ttl]
            life = min((each for each in lives if each is not None), default=None)
            inserted.append((id_, values["place"], values["state"], values["delay"], life, message.body))
        self._insert_many(cursor, inserted)
        return True

    def _inserts(self, messages: Sequence[Outgoing], condition: str) -> tuple[list[str], dict[str, Any]]:
        """Return an INSERT for each message, which inserts it if a condition holds, and the values of all."""
        found = [
            numbered(f"{self._insert} AND {condition}", _values(message), number)
            for number, message in enumerate(messages)
        ]
        return [sql for sql, _ in found], {key: value for _, values in found for key, value in values.items()}

    @abstractmethod
    def _insert_many(self, cursor: Any, messages: Sequence[tuple[Any, ...]]) -> None:
        """Insert (queue id, place, state, delay, time to live, body) of each, in this order."""

    # -- consuming --------------------------------------------------------------------------------

    def reserve(
        self,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt] = (),
    ) -> list[Delivery]:
        """Acknowledge and lease; once more where some of what was leased is not to be delivered."""
        settled = sorted(acknowledge, key=_message)
        if limit <= 0 or not queues:
            self.acknowledge(settled)
            return []
        found: list[Delivery] = []
        while True:
            taken = self._session.run(self._taking(consumer, queues, limit - len(found), settled))
            good = [row for row in taken if not row.expired and row.deliveries <= self._delivery_limit]
            found += [
                Delivery(queue, body, HIGHEST_PRIORITY - place, Receipt(id_, token), deliveries)
                for queue, id_, token, deliveries, place, _, body in good
            ]
            if len(good) == len(taken):
                return found
            self._remove_spent(taken)
            settled = []

    def _taking(self, consumer: str, queues: Sequence[str], limit: int, settled: list[Receipt]) -> Any:
        return lambda cursor: self._take(cursor, consumer, queues, limit, settled)

    @abstractmethod
    def _take(
        self,
        cursor: Any,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt],
    ) -> list[Row]:
        """Acknowledge, make ready what is due, lease up to `limit` messages and return them in order.

        Where less than half of the consumer's lease is left, or none, it is extended: for a message must
        never be leased to a consumer whose lease somebody else is ending at this moment.
        """

    def _remove_spent(self, taken: Iterable[Row]) -> None:
        """Drop what has expired; set aside what was delivered too often, this delivery not counted."""
        expired: list[Receipt] = []
        for row in taken:
            receipt = Receipt(row.id, row.token)
            if row.expired:
                expired.append(receipt)
            elif row.deliveries > self._delivery_limit:
                detail = f"delivered {row.deliveries - 1} times and never finished"
                self._bury([receipt], DELIVERIES_EXHAUSTED, detail, uncounted=1)
        self.acknowledge(expired)

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Delete the messages that are still held by these receipts."""
        if receipts:
            settled = sorted(receipts, key=_message)
            self._session.run(lambda cursor: self._delete(cursor, settled))

    @abstractmethod
    def _delete(self, cursor: Any, receipts: Sequence[Receipt]) -> None:
        """Delete what these receipts hold, in one statement."""

    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Make the messages ready again; their ids, and so their places, stay."""

        def work(cursor: Any) -> int:
            held = _lock_held(cursor, receipts)
            if held:
                cursor.execute(f"{put_back(counted)} WHERE id IN ({marks(held)})", held)
            return len(held)

        if receipts:
            released = self._session.transaction(work)
            if released:
                self._made_ready()

    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        """Move the messages to the table of dead letters."""
        if receipts:
            self._bury(receipts, reason, detail, uncounted=0)

    def _bury(self, receipts: Sequence[Receipt], reason: str, detail: str, *, uncounted: int) -> None:
        # No text of a database holds a NUL.
        detail = validity.storable(detail.replace("\0", "\ufffd"))

        def work(cursor: Any) -> None:
            held = _lock_held(cursor, receipts)
            if held:
                these = f"({marks(held)})"
                cursor.execute(
                    f"INSERT INTO {DEAD} (queue, place, reason, detail, deliveries, died_at, body) "
                    f"SELECT q.name, m.place, %s, %s, m.deliveries - {uncounted}, {self.now}, m.body "
                    f"FROM {MESSAGES} m JOIN {QUEUES} q ON q.id = m.queue WHERE m.id IN {these} "
                    "ORDER BY m.id",
                    (reason, detail, *held),
                )
                cursor.execute(f"DELETE FROM {MESSAGES} WHERE id IN {these}", held)

        self._session.transaction(work)

    def _looked(self, queues: Sequence[str]) -> tuple[bool, float]:
        """Return whether a message may be ready, and the seconds until a delayed one will be."""
        names = tuple(queues) or ("",)
        ready, due = self._query(self._look % marks(names), names)[0]
        return bool(ready) or (due is not None and due <= 0), float("inf") if due is None else due / 1000


def _values(message: Outgoing) -> dict[str, Any]:
    delay = max(0, round(message.delay * 1000))
    return {
        "queue": message.queue,
        "place": HIGHEST_PRIORITY - message.priority,
        "state": DELAYED if delay else READY,
        "delay": delay or None,
        "expires": None if message.expires is None else round(message.expires * 1000),
        "body": message.body,
    }


def _message(receipt: Receipt) -> int:
    return int(receipt.message)


def _lock_held(cursor: Any, receipts: Sequence[Receipt]) -> list[int]:
    """Return the ids of the messages that are held by these receipts, locked in order."""
    tokens = {int(receipt.message): int(receipt.token) for receipt in receipts}
    found = rows(
        cursor,
        f"SELECT id, token FROM {MESSAGES} WHERE id IN ({marks(tokens)}) AND state = {LEASED} "
        "ORDER BY id FOR UPDATE",
        list(tokens),
    )
    return [id_ for id_, token in found if tokens[id_] == token]
