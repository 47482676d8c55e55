"""A Celery result backend in one SQLite file.

A result is a row with its expiry; writes remove what has expired, so nothing has to run on a schedule.
The parts of a chord are counted as a set of task ids: a part that is delivered twice counts once, and
one that comes after its chord has finished changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from celery.backends.base import KeyValueStoreBackend
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as NotReady
from celery.utils.log import get_logger

from broker_profiles.errors import StoreUnavailable
from broker_profiles.results.kept import Kept, Page, Wanted, decoded, from_meta, page_of, text
from broker_profiles.results.waiting import BoundedWait
from broker_profiles.settings import sqlite_file
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile

logger = get_logger(__name__)

# Times are milliseconds since the epoch; no expiry is NULL.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER);
CREATE INDEX IF NOT EXISTS results_expiring ON results (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS chord_parts (
    chord TEXT NOT NULL, part TEXT NOT NULL, expires INTEGER,
    PRIMARY KEY (chord, part)) WITHOUT ROWID
"""

#: Seconds between removals of expired rows by one process.
_CLEAN_EVERY = 60.0

#: Seconds between looks at a result that is waited for: at first, and later.
_FIRST_LOOK, _LAST_LOOK = 0.002, 0.05

_DONE = "done"

#: Rows that are read at once of those that are looked through.
_PAGE = 1000

#: SQLite takes 32,766 values in one statement.
_KEYS_AT_ONCE = 10_000

_memory = SQLiteFile(IN_MEMORY, _SCHEMA, timeout=5.0, synchronous="OFF")


def _now() -> int:
    return int(time.time() * 1000)


class SQLiteBackend(BoundedWait, KeyValueStoreBackend):  # type: ignore[misc]
    """Results at `leased-sqlite:////absolute/path`, or in this process at `leased-sqlite://`."""

    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True
    persistent = True
    key_t = str

    def __init__(self, app: Any, url: str | None = None, expires: Any = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        self.expires = self.prepare_expires(expires, type=int)
        path = sqlite_file(url or "")
        options = app.conf.broker_transport_options
        self._file = (
            SQLiteFile(
                path,
                _SCHEMA,
                timeout=float(options.get("timeout_seconds", 5.0)),
                synchronous=str(options.get("synchronous", "NORMAL")),
            )
            if path
            else _memory
        )
        self._cleaned_at = time.monotonic()

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address; it holds no password."""
        return str(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether trying again may help."""
        return isinstance(exc, StoreUnavailable)

    # -- keys and values --------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """Return the value of a key that has not expired, or None."""
        return self.mget([key])[0]

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of several keys, in their order."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            query = (
                f"SELECT key, value FROM results WHERE key IN ({marks}) AND (expires IS NULL OR expires > ?)"
            )
            found.update(self._file.read(query, (*some, _now())))
        return [found.get(key) for key in keys]

    def set(self, key: str, value: Any) -> None:
        """Store a value for `result_expires` seconds."""
        if isinstance(value, str):
            value = value.encode()
        self._file.write(
            "INSERT INTO results VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
            (key, value, self._expiry(self.expires)),
        )
        self._clean_sometimes()

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._file.write("DELETE FROM results WHERE key = ?", (key,))

    def expire(self, key: str, value: float) -> None:
        """Let a key expire after so many seconds from now."""
        self._file.write("UPDATE results SET expires = ? WHERE key = ?", (self._expiry(value), key))

    def _expiry(self, seconds: float | None) -> int | None:
        return _now() + int(seconds * 1000) if seconds else None

    def _clean_sometimes(self) -> None:
        if time.monotonic() - self._cleaned_at >= _CLEAN_EVERY:
            self._cleaned_at = time.monotonic()
            self.cleanup()

    def cleanup(self) -> None:
        """Remove what has expired; `celery beat` may call it, and need not."""
        now = _now()
        for table in ("results", "chord_parts"):
            self._file.write(f"DELETE FROM {table} WHERE expires <= ?", (now,))

    # -- what is kept -----------------------------------------------------------------------------

    def key_of(self, task_id: str) -> str:
        """Return the key of a task's result."""
        return str(self.get_key_for_task(task_id))

    def kept(self, task_id: str) -> Kept | None:
        """Return what is stored of a task."""
        key = self.key_of(task_id)
        rows = self._rows("key = ?", key)
        return self._as_kept(*rows[0]) if rows else None

    def page(self, wanted: Wanted) -> Page:
        """Return the results that are wanted, by their keys; `after` is the last key of the page before."""
        return page_of(self._entries(wanted.after), wanted)

    def purge(self, *, everything: bool) -> int:
        """Remove what has expired, or all results and groups; return how many that were."""
        with self._file.transaction() as connection:
            old, now = " WHERE expires <= :now", {"now": _now()}
            # Those of a chord that is not done yet are no results, and it would wait for them for ever.
            connection.execute(f"DELETE FROM chord_parts{old}", now)
            return int(connection.execute(f"DELETE FROM results{'' if everything else old}", now).rowcount)

    def _entries(self, after: str) -> Iterator[tuple[str, Kept | None]]:
        first, last = self.task_keyprefix, f"{self.task_keyprefix}\U0010ffff"
        while rows := self._rows(f"key > ? AND key < ? ORDER BY key LIMIT {_PAGE}", max(first, after), last):
            yield from ((row[0], self._as_kept(*row)) for row in rows)
            after = rows[-1][0]

    def _rows(self, condition: str, *values: str) -> list[tuple[str, bytes, int | None]]:
        query = (
            f"SELECT key, value, expires FROM results WHERE (expires IS NULL OR expires > ?) AND {condition}"
        )
        return list(self._file.read(query, (_now(), *values)))

    def _as_kept(self, key: str, value: bytes, expires: int | None) -> Kept:
        ttl = (expires - _now()) / 1000 if expires else None
        return from_meta(decoded(self, key, value), key=key, value=text(value), ttl=ttl)

    # -- chords -----------------------------------------------------------------------------------

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a finished part once, and start the body when all are in."""
        group_id = request.group
        if not group_id:
            return
        key = self.get_key_for_chord(group_id)
        counted = self._ensure_retryable(self._note_part, key, request.id)
        size = request.chord.get("chord_size")
        if size is not None and counted < size:
            return
        # Read once and not for every part: it is as large as the chord.
        header = self.app.GroupResult.restore(group_id, backend=self)
        if header is None:
            if not self._is_done(key):
                self._fail(request, f"the parts of the chord {group_id} have expired")
        elif counted >= (size or len(header)):
            self._start_body(request, header, key)

    def _note_part(self, key: str, part: str) -> int:
        """Note that a part is in and return how many are.

        In one step: of two parts that finish together, one alone sees that all are in. A part that is
        delivered again may be the one whose worker died before the body was sent.
        """
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO chord_parts VALUES (?, ?, ?)",
                (key, part, self._expiry(self.chord_expires)),
            )
            row = connection.execute("SELECT count(*) FROM chord_parts WHERE chord = ?", (key,)).fetchone()
        return int(row[0])

    def _start_body(self, request: Any, header: Any, key: str) -> None:
        body = maybe_signature(request.chord, app=self.app)
        try:
            values = header.join_native(
                timeout=self.app.conf.result_chord_join_timeout,
                propagate=True,
                disable_sync_subtasks=False,
            )
        except Exception as error:
            logger.exception("Chord %r failed", request.group)
            culprit = next(header._failed_join_report(), None)
            reason = f"Dependency {culprit.id} raised {error!r}" if culprit else repr(error)
            self._fail(request, reason)
        else:
            self.app.amqp._retry_publish(body.delay, values)
        self._ensure_retryable(self._finish, header, key)

    def _fail(self, request: Any, reason: str) -> None:
        body = maybe_signature(request.chord, app=self.app)
        try:
            raise ChordError(reason)
        except ChordError as error:  # Celery takes the traceback from the exception being handled
            self.chord_error_from_stack(callback=body, exc=error)

    def _finish(self, header: Any, key: str) -> None:
        """Remember that this chord is over, for parts that are delivered again."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM chord_parts WHERE chord = ?", (key,))
            connection.execute(
                "INSERT INTO chord_parts VALUES (?, ?, ?)",
                (key, _DONE, self._expiry(self.expires)),
            )
        header.delete(backend=self)

    def _is_done(self, key: str) -> bool:
        return bool(self._file.read("SELECT 1 FROM chord_parts WHERE chord = ? AND part = ?", (key, _DONE)))

    # -- waiting ----------------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = None,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """Return the result once it is there, looking every few milliseconds (Celery: every 500)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            left = pause if deadline is None else deadline - time.monotonic()
            try:
                return super().wait_for(
                    task_id, timeout=0, interval=0.001, no_ack=no_ack, on_interval=on_interval
                )
            except NotReady:
                if left <= 0:
                    raise
            time.sleep(min(pause, left))
            pause = min(pause * 1.3, _LAST_LOOK)

    def get_many(self, task_ids: Iterable[str], interval: float = 0.5, **kwargs: Any) -> Any:
        """Yield results as they come, looking every 50 ms (Celery: every 500)."""
        return super().get_many(task_ids, interval=min(interval or 0.5, _LAST_LOOK), **kwargs)

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {"expires": self.expires, "url": self.url, **(kwargs or {})})
