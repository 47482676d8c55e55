"""The marks of a SQL store: a row each, locked while a step of it is taken and its messages are stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from broker_profiles.transports.sql_leases import SQLLeases
from broker_profiles.transports.sql_queues import marks as parameters
from broker_profiles.transports.sql_queues import rows
from broker_profiles.transports.sql_schema import LONGEST_NAME, MARKS
from broker_profiles.transports.store import Outgoing, Step


class SQLMarks(SQLLeases):
    """Marks in a SQL database; a row without a value is a mark that is not there yet."""

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Read the rows."""
        if not names:
            return {}
        where = f"name IN ({parameters(names)}) AND value <> ''"
        return dict(self._query(f"SELECT name, value FROM {MARKS} WHERE {where}", tuple(names)))

    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Lock, compare, insert and change in one transaction; again once all queues are known."""
        self._session.driver.check_name(step.name, LONGEST_NAME)
        names = {message.queue for message in messages}
        self._check(messages)
        while (
            taken := self._session.transaction(lambda cursor: self._advance(cursor, step, messages))
        ) is None:
            for name in names:
                self.declare(name, expires=None, message_ttl=None)
        if taken and names:
            self._published(names)
        return taken

    def _advance(self, cursor: Any, step: Step, messages: Sequence[Outgoing]) -> bool | None:
        """Return whether the step was taken; None, having done nothing, where a queue is unknown."""
        if step.seen is None:
            cursor.execute(
                f"INSERT INTO {MARKS} (name, value, used_at) VALUES (%s, '', {self.now}) "
                f"{self.or_nothing('name')}",
                (step.name,),
            )
        found = rows(cursor, f"SELECT value FROM {MARKS} WHERE name = %s FOR UPDATE", (step.name,))
        value = found[0][0] if found else ""
        if value == step.value:
            return True
        if not found or value != (step.seen or ""):
            return False
        if messages and not self._publish_many(cursor, messages):
            return None
        cursor.execute(
            f"UPDATE {MARKS} SET value = %s, used_at = {self.now} WHERE name = %s", (step.value, step.name)
        )
        return True

    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note the time, and delete what has an older one."""
        if names:
            where = f"name IN ({parameters(names)})"
            self._change(f"UPDATE {MARKS} SET used_at = {self.now} WHERE {where}", tuple(names))
        self._change(f"DELETE FROM {MARKS} WHERE used_at <= {self.now} - %s", (int(seconds * 1000),))

    @abstractmethod
    def _check(self, messages: Sequence[Outgoing]) -> None:
        """Refuse what the server could not take. Raises `StoreError`."""

    @abstractmethod
    def _publish_many(self, cursor: Any, messages: Sequence[Outgoing]) -> bool:
        """Insert messages inside a transaction; return False, having inserted none, for unknown queues."""
