"""What the Redis store keeps beside messages: marks and dead letters, in hashes and sorted sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker_profiles.transports.redis_scripts import Argument, Link
from broker_profiles.transports.store import PAGE, SHOWN, DeadLetter, Outgoing, Step, Store


class RedisRecords(Store):
    """The part of a `Store` in Redis that is about marks and dead letters."""

    _link: Link
    _prefix: str

    # -- marks ------------------------------------------------------------------------------------

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Read the marks."""
        if not names:
            return {}
        values: list[bytes | None] = self._link.command("HMGET", f"{self._prefix}marks", *names)
        return {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}

    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Compare, change and store, in one script."""
        arguments = [step.name, step.seen or "", step.value, *fields(messages)]
        return bool(self._link.script("advance", arguments))

    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note the time, and remove what has an older one."""
        self._link.script("keep_marks", [milliseconds(seconds), *names])

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(
        self, queue: str | None = None, limit: int = PAGE, after: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Return the oldest dead letters."""
        where = [limit, after.id if after else 0, *([] if queue is None else [queue])]
        return self._dead_letters("dead_letters", where)

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Look dead letters up."""
        found = self._dead_letters("find_dead_letters", ids) if ids else []
        return sorted(found, key=lambda letter: letter.id)

    def _dead_letters(self, script: str, arguments: Sequence[Argument]) -> list[DeadLetter]:
        return [
            DeadLetter(
                int(id_),
                name.decode(),
                body,
                priority,
                reason.decode(),
                detail.decode(),
                count,
                at / 1000,
                size,
            )
            for id_, name, body, priority, reason, detail, count, at, size in self._link.script(
                script, [SHOWN, *arguments]
            )
        ]

    def replay(self, ids: Sequence[int | str]) -> int:
        """Make messages of the dead letters."""
        return int(self._link.script("replay", ids)) if ids else 0

    def expire_dead_letters(self, queues: Sequence[str], seconds: float, kept: int) -> int:
        """Remove a page of them."""
        return int(self._link.script("expire_dead_letters", [milliseconds(seconds), kept, PAGE, *queues]))

    def discard(self, ids: Sequence[int | str]) -> int:
        """Remove dead letters."""
        return int(self._link.script("discard", ids)) if ids else 0


def fields(messages: Iterable[Outgoing]) -> list[Argument]:
    """Return messages as `publish` in `lua/store.lua` reads them."""
    arguments: list[Argument] = []
    for message in messages:
        arguments += (
            message.queue,
            message.priority,
            max(0, round(message.delay * 1000)),
            0 if message.expires is None else max(1, round(message.expires * 1000)),
            message.body,
        )
    return arguments


def milliseconds(seconds: float | None) -> int:
    """Return seconds as scripts count them; 0 for none."""
    return 0 if seconds is None else max(1, int(seconds * 1000))
