"""Celery's results in Redis, without a part in sending, and shown as they lie there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from celery.backends import redis

from broker_profiles.results.kept import Kept, Page, Wanted, decoded, from_meta, numbers, page_of, text
from broker_profiles.results.waiting import BoundedWait

#: Keys that one step of a scan goes over.
_STEP = 1000


class RedisBackend(BoundedWait, redis.RedisBackend):  # type: ignore[misc]
    """A result backend that whoever sends a task need not reach."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing.

        Celery subscribes to the result here: a round trip for every task, which fails the sender where the
        store is away and the broker is not. Who waits for a result subscribes then, and looks first.
        """

    # -- what is kept -----------------------------------------------------------------------------

    def key_of(self, task_id: str) -> str:
        """Return the key of a task's result."""
        return text(self.get_key_for_task(task_id))

    def kept(self, task_id: str) -> Kept | None:
        """Return what is stored of a task."""
        return self._kept([self.get_key_for_task(task_id)])[0]

    def page(self, wanted: Wanted) -> Page:
        """Return the results that are wanted, in no order; `after` is a step of a scan and a place in it."""
        return page_of(self._entries(wanted.after), wanted)

    def purge(self, *, everything: bool) -> int:
        """Remove all results and groups; what has expired Redis has removed itself."""
        if not everything:
            return 0
        removed = 0
        for prefix in (self.task_keyprefix, self.group_keyprefix):
            for keys in self._steps(prefix):
                removed += self.client.delete(*keys) if keys else 0
        return removed

    def _entries(self, after: str) -> Iterator[tuple[str, Kept | None]]:
        cursor, skip = (*numbers(after), 0)[:2]
        while True:
            following, keys = self.client.scan(cursor, _pattern(self.task_keyprefix), _STEP)
            for place, kept in enumerate(self._kept(keys[skip:]), skip + 1):
                yield f"{cursor}:{place}", kept
            if following == 0:
                return
            cursor, skip = following, 0
            yield f"{cursor}:0", None

    def _steps(self, prefix: bytes) -> Iterator[list[bytes]]:
        cursor = None
        while cursor != 0:
            cursor, keys = self.client.scan(cursor or 0, _pattern(prefix), _STEP)
            yield keys

    def _kept(self, keys: list[bytes]) -> list[Kept | None]:
        if not keys:
            return []
        with self.client.pipeline(transaction=False) as pipe:
            pipe.mget(keys)
            for key in keys:
                pipe.pttl(key)
            values, *times = pipe.execute()
        return [
            from_meta(
                decoded(self, text(key), value),
                key=text(key),
                value=text(value),
                ttl=left / 1000 if left >= 0 else None,
            )
            if value is not None
            else None
            for key, value, left in zip(keys, values, times, strict=True)
        ]


def _pattern(prefix: bytes) -> bytes:
    return re.sub(rb"([\\*?\[\]])", rb"\\\1", prefix) + b"*"
