"""What a result store really keeps: one result where it lies, a page of them, and their removal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from celery import states

from broker_profiles.errors import ConfigurationError

#: The most entries of a store that one page looks at: where few fit, a page is short and says how to go on.
LOOKED_AT = 10_000

#: Seconds between looks at results that are waited for: at first, and later.
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5


#: The state of what lies where results do and cannot be decoded.
UNDECODED = "CANNOT DECODE"


class UnknownPage(ConfigurationError):
    """No page of results begins after {after!r}: give what `results list` has printed."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A result where it lies: `value` is what is stored, `ttl` and `age` are seconds where they are known."""

    id: str
    key: str
    state: str
    value: str
    traceback: str | None = None
    #: Stored by Celery where `result_extended` is set.
    task: str | None = None
    #: Stored by backends of other makers alone.
    runtime: float | None = None
    age: float | None = None
    ttl: float | None = None


class Wanted(NamedTuple):
    """Which results a page shows; `after` is where the page before has ended."""

    limit: int
    state: str | None = None
    task: str | None = None
    after: str = ""

    def fits(self, kept: Kept) -> bool:
        """Return whether a result is wanted."""
        return self.state in (None, kept.state) and self.task in (None, kept.task)


class Page(NamedTuple):
    """Some results, and where the next page begins: nowhere, where this is the last."""

    results: list[Kept]
    next: str


@runtime_checkable
class Shown(Protocol):
    """A result backend that shows what it keeps."""

    def key_of(self, task_id: str) -> str:
        """Return where the result of a task lies, whether there is one or not."""

    def kept(self, task_id: str) -> Kept | None:
        """Return what is stored of a task."""

    def page(self, wanted: Wanted) -> Page:
        """Return the results that are wanted, in the order of the store."""

    def purge(self, *, everything: bool) -> int:
        """Remove what has expired, or all results and groups; return how many that were."""


def page_of(entries: Iterable[tuple[str, Kept | None]], wanted: Wanted) -> Page:
    """Return a page of what a store has: of each entry where it is, and what it is if it is a result."""
    found: list[Kept] = []
    for looked_at, (place, kept) in enumerate(entries, 1):
        if kept is not None and wanted.fits(kept):
            found.append(kept)
        if len(found) == wanted.limit or looked_at == LOOKED_AT:
            return Page(found, place)
    return Page(found, "")


def numbers(after: str) -> list[int]:
    """Return the numbers in the beginning of a page, 0 for the first. Raises `UnknownPage`."""
    try:
        return [int(part) for part in (after or "0").split(":")]
    except ValueError:
        raise UnknownPage(after=after) from None


def decoded(backend: Any, key: str, value: bytes) -> Mapping[str, Any]:
    """Return what Celery stored; one thing that cannot be decoded does not hide all the others."""
    try:
        found = backend.decode(value)
    except Exception:  # in a serializer of before, or not Celery's at all: of any kind
        found = None
    return found if isinstance(found, Mapping) else {"task_id": key, "status": UNDECODED}


def from_meta(meta: Mapping[str, Any], *, key: str, value: str, ttl: float | None) -> Kept:
    """Return what a key-value store has under a key, from what Celery stored there."""
    return Kept(
        id=str(meta.get("task_id")),
        key=key,
        state=str(meta.get("status")),
        value=value,
        traceback=meta.get("traceback"),
        task=meta.get("name"),
        runtime=meta.get("runtime"),
        age=_age(meta.get("date_done")),
        ttl=ttl,
    )


def _age(done: str | None) -> float | None:
    if done is None:
        return None
    at = datetime.fromisoformat(done)
    return (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()


def text(value: object) -> str:
    """Return a stored value as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def as_they_come(backend: Any, ids: Iterable[str], seconds: float) -> Iterator[tuple[str, str]]:
    """Yield the id and the state of each task once it has finished, and at the end of those that have not."""
    waiting = list(dict.fromkeys(ids))
    deadline = time.monotonic() + seconds
    pause = _FIRST_LOOK
    while True:
        now = {id_: str(backend.get_task_meta(id_, cache=False)["status"]) for id_ in waiting}
        late = time.monotonic() >= deadline
        yield from ((id_, state) for id_, state in now.items() if late or state in states.READY_STATES)
        waiting = [id_ for id_, state in now.items() if state not in states.READY_STATES]
        if late or not waiting:
            return
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, _LAST_LOOK)
