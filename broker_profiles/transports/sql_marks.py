"""The marks of a SQL store: a row each, changed together with the messages of a step in one round trip.

A transaction of several would hold the row for as long as its client is frozen between two of them, and
nobody else could take a step meanwhile.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker_profiles.transports.sql_leases import SQLLeases
from broker_profiles.transports.sql_queues import marks as parameters
from broker_profiles.transports.sql_schema import LONGEST_NAME, MARKS, QUEUES
from broker_profiles.transports.store import Outgoing, Step

_PARAMETER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class _Sending(Step):
    """A step, and the queues that have to be there for what it sends."""

    queues: tuple[str, ...]


class SQLMarks(SQLLeases):
    """Marks in a SQL database; a row without a value is a mark that is not there yet."""

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Read the rows."""
        if not names:
            return {}
        where = f"name IN ({parameters(names)}) AND value <> ''"
        return dict(self._query(f"SELECT name, value FROM {MARKS} WHERE {where}", tuple(names)))

    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Make what has to be there known, then compare, change and insert in one round trip."""
        self._session.driver.check_name(step.name, LONGEST_NAME)
        names = sorted({message.queue for message in messages})
        self._check(messages)
        sending = _Sending(step.name, step.seen, step.value, tuple(names))
        while not self._try(sending, messages):
            found = self.marks([step.name]).get(step.name)
            if found == step.value:
                return True
            if found != step.seen:
                return False
            # A queue was dropped, or the row removed, between two statements.
        if names:
            self._published(names)
        return True

    def _try(self, sending: _Sending, messages: Sequence[Outgoing]) -> bool:
        for name in sending.queues:
            self.declare(name, expires=None, message_ttl=None)
        if sending.seen is None:
            self._change(
                f"INSERT INTO {MARKS} (name, value, used_at) VALUES (%s, '', {self.now}) "
                f"{self.or_nothing('name')}",
                (sending.name,),
            )
        return self._session.run(lambda cursor: self._step(cursor, sending, messages))

    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note the time, and delete what has an older one."""
        if names:
            where = f"name IN ({parameters(names)})"
            self._change(f"UPDATE {MARKS} SET used_at = {self.now} WHERE {where}", tuple(names))
        self._change(f"DELETE FROM {MARKS} WHERE used_at <= {self.now} - %s", (int(seconds * 1000),))

    def _update(self, step: Step) -> tuple[str, dict[str, Any]]:
        """Return the statement that changes a mark if it says what was seen of it, and its values.

        It changes nothing where one of the step's queues is not there, and its message would not be inserted.
        """
        where = "name = %(name)s AND value = %(seen)s"
        values = {"value": step.value, "name": step.name, "seen": step.seen or ""}
        queues = step.queues if isinstance(step, _Sending) else ()
        if queues:
            known = {f"queue{number}": name for number, name in enumerate(queues)}
            these = ", ".join(f"%({key})s" for key in known)
            where += f" AND (SELECT count(*) FROM {QUEUES} WHERE name IN ({these})) = {len(known)}"
            values |= known
        return f"UPDATE {MARKS} SET value = %(value)s, used_at = {self.now} WHERE {where}", values

    @abstractmethod
    def _check(self, messages: Sequence[Outgoing]) -> None:
        """Refuse what the server could not take. Raises `StoreError`."""

    @abstractmethod
    def _step(self, cursor: Any, step: Step, messages: Sequence[Outgoing]) -> bool:
        """Change the mark and insert the messages in one round trip; return whether it was changed."""


def numbered(sql: str, values: Mapping[str, Any], number: int) -> tuple[str, dict[str, Any]]:
    """Return a statement and its values with names of parameters that those of another number do not have."""
    return (
        _PARAMETER.sub(rf"%(m{number}_\1)s", sql),
        {f"m{number}_{name}": value for name, value in values.items()},
    )
