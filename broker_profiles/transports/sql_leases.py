"""The leases of a SQL store: consumers that renew them, and what is ended when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker_profiles.transports.sql_queues import SQLQueues, marks, rows
from broker_profiles.transports.sql_schema import CONSUMERS, LEASED, MESSAGES, QUEUES, READY
from broker_profiles.transports.sql_session import Session

#: The most expired messages that one renewal drops.
_BATCH = 1000


class SQLLeases(SQLQueues):
    """A row for each consumer, whatever number of messages it holds."""

    def __init__(self, session: Session, lease_seconds: float) -> None:
        super().__init__(session)
        self._lease = int(lease_seconds * 1000)

    def _made_ready(self) -> None:
        """Wake those who wait for any queue; called when messages were put back."""

    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        """Extend the lease first, then end what has run out, in transactions of their own."""
        valid = f"name = %s AND until > {self.now}"
        renewed = self._change(f"UPDATE {CONSUMERS} SET until = {self._until} WHERE {valid}", (consumer,))
        if not renewed:
            self._session.transaction(lambda cursor: self._begin_anew(cursor, consumer))
        if queues:
            self._change(
                f"UPDATE {QUEUES} SET used_at = {self.now} "
                f"WHERE expires IS NOT NULL AND name IN ({marks(queues)})",
                tuple(queues),
            )
        self._end_leases(consumer)
        self.drop_unused()
        self._change(self.delete_some(f"expires <= {self.now} AND state <> {LEASED}", _BATCH))
        return bool(renewed)

    @property
    def _until(self) -> str:
        return f"{self.now} + {self._lease}"

    def _begin_anew(self, cursor: Any, consumer: str) -> None:
        """Begin a lease and give back what an ended one held; inside a transaction.

        The row is locked first, so that a reservation that begins the same lease comes before this or after
        it: what was reserved under a lease that holds is not given back.
        """
        begin = f"INSERT INTO {CONSUMERS} (name, until) VALUES (%s, 0) {self.or_nothing('name')}"
        look = f"SELECT until > {self.now} FROM {CONSUMERS} WHERE name = %s FOR UPDATE"
        found: list[Any] = []
        while not found:  # an old row may be removed between the two
            cursor.execute(begin, (consumer,))
            found = rows(cursor, look, (consumer,))
        if not found[0][0]:
            cursor.execute(f"{put_back(counted=True)} WHERE consumer = %s", (consumer,))
        cursor.execute(f"UPDATE {CONSUMERS} SET until = {self._until} WHERE name = %s", (consumer,))

    def _end_leases(self, but: str) -> None:
        ended = f"until <= {self.now} AND name <> %s"
        found = [row[0] for row in self._query(f"SELECT name FROM {CONSUMERS} WHERE {ended}", (but,))]

        def work(cursor: Any) -> None:
            locked = f"name IN ({marks(found)}) AND {ended} ORDER BY name FOR UPDATE SKIP LOCKED"
            for (name,) in rows(cursor, f"SELECT name FROM {CONSUMERS} WHERE {locked}", (*found, but)):
                _end(cursor, name, counted=True)

        if found:
            self._session.transaction(work)
            self._made_ready()

    def forget(self, consumer: str) -> None:
        """Give back what the consumer holds, uncounted, and forget it."""
        self._session.transaction(lambda cursor: _end(cursor, consumer, counted=False))
        self._made_ready()


def put_back(counted: bool) -> str:
    """Return the start of the UPDATE that makes messages ready, their last delivery counted or not."""
    back = "" if counted else ", deliveries = deliveries - 1"
    return f"UPDATE {MESSAGES} SET state = {READY}, consumer = NULL{back}"


def _end(cursor: Any, consumer: str, *, counted: bool) -> None:
    """Give back what a consumer holds, and remove it, inside a transaction."""
    cursor.execute(f"DELETE FROM {CONSUMERS} WHERE name = %s", (consumer,))
    cursor.execute(f"{put_back(counted)} WHERE consumer = %s", (consumer,))
