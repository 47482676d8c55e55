"""What the SQLite store keeps beside messages: marks and dead letters, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker_profiles.transports import sqlite_tables as tables
from broker_profiles.transports.sqlite_file import SQLiteFile
from broker_profiles.transports.store import PAGE, DeadLetter, Outgoing, Step, Store


class SQLiteRecords(Store):
    """The part of a `Store` in one file that is about marks and dead letters."""

    _file: SQLiteFile

    # -- marks ------------------------------------------------------------------------------------

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Read the marks."""
        marks = ", ".join("?" * len(names))
        return dict(self._file.read(f"SELECT name, value FROM marks WHERE name IN ({marks})", tuple(names)))

    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Compare, change and insert in one transaction."""
        with self._file.transaction() as connection:
            taken = tables.advance(connection, step, messages, tables.now_ms())
        self._file.check_still_there()
        return taken

    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note the time, and delete what has an older one."""
        now = tables.now_ms()
        with self._file.transaction() as connection:
            connection.executemany(
                "UPDATE marks SET used_at = ? WHERE name = ?", ((now, name) for name in names)
            )
            connection.execute("DELETE FROM marks WHERE used_at <= ?", (now - int(seconds * 1000),))

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(
        self, queue: str | None = None, limit: int = PAGE, after: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Return the oldest dead letters."""
        rows = self._file.read(
            f"{tables.DEAD_LETTERS} WHERE queue = coalesce(?, queue) AND id > ? ORDER BY id LIMIT ?",
            (queue, after.id if after else 0, limit),
        )
        return [DeadLetter(*row) for row in rows]

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Look dead letters up."""
        marks = ", ".join("?" * len(ids))
        rows = self._file.read(f"{tables.DEAD_LETTERS} WHERE id IN ({marks}) ORDER BY id", tuple(ids))
        return [DeadLetter(*row) for row in rows]

    def replay(self, ids: Sequence[int | str]) -> int:
        """Insert each as a new message and delete the dead letter, in one transaction."""
        now = tables.now_ms()
        replayed = 0
        with self._file.transaction() as connection:
            for id_ in ids:
                row = connection.execute(
                    "DELETE FROM dead WHERE id = ? RETURNING queue, body, priority", (id_,)
                ).fetchone()
                if row is None:
                    continue
                connection.execute(
                    "INSERT OR IGNORE INTO queues (name, used_at) VALUES (?, ?)", (row[0], now)
                )
                connection.execute(tables.INSERT, tables.row_of(Outgoing(*row), now))
                replayed += 1
        return replayed

    def expire_dead_letters(self, queues: Sequence[str], seconds: float, kept: int) -> int:
        """Look without a lock, and discard the first page that is found."""
        before = tables.now_ms() - int(seconds * 1000)
        removed = self._discard_found(tables.DEAD_BEFORE, (PAGE, before))
        for queue in queues:
            removed = removed or self._discard_found(tables.DEAD_BEYOND, (queue, queue, kept, PAGE))
        return removed

    def _discard_found(self, query: str, values: Sequence[Any]) -> int:
        ids = [row[0] for row in self._file.read(query, tuple(values))]
        return self.discard(ids) if ids else 0

    def discard(self, ids: Sequence[int | str]) -> int:
        """Delete dead letters."""
        with self._file.transaction() as connection:
            return connection.executemany("DELETE FROM dead WHERE id = ?", ((id_,) for id_ in ids)).rowcount
