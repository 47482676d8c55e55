"""Dead letters, the same on every broker that keeps them: list, read, replay, discard.

A message is set aside with its reason when it has been delivered too often, was rejected, or cannot be
read. It stays for a stated time, for a person to look at it and replay or discard it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from celery import Celery
from celery.app.routes import MapRoute

from broker_profiles.errors import NoDeadLetters, NoSuchDeadLetter
from broker_profiles.runtime.dead_letter import Contents, DeadLetter, contents, shown
from broker_profiles.transports import store


def list_dead_letters(
    app: Celery,
    queue: str | None = None,
    limit: int | None = 100,
    *,
    reason: str | None = None,
    task: str | None = None,
) -> list[DeadLetter]:
    """Return the oldest dead letters of a queue, or of all queues; see `each_dead_letter`.

    Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    with contextlib.closing(each_dead_letter(app, queue, reason=reason, task=task)) as letters:
        return list(itertools.islice(letters, limit))


def each_dead_letter(
    app: Celery, queue: str | None = None, *, reason: str | None = None, task: str | None = None
) -> Generator[DeadLetter, None, None]:
    """Yield the dead letters, oldest first, a page of them in memory: of a queue, a reason, tasks of a name.

    The name may hold `*` and `?`. On RabbitMQ, which cannot be asked which queues there are, all queues are
    those of the application's configuration, in turn, and what was looked at before may come behind the rest.
    Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    with (
        _keeper(app, queue) as opened,
        contextlib.closing(opened.each_dead_letter(queue)) as letters,
    ):
        for letter in map(shown, letters):
            if reason in (None, letter.reason) and (task is None or fnmatchcase(letter.task, task)):
                yield letter


def read_dead_letter(app: Celery, id: str, queue: str | None = None) -> Contents:
    """Return a dead letter with its headers and arguments, for a person to read.

    `queue` names one to look in besides those of the application. Raises `NoSuchDeadLetter`,
    `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    return read_dead_letters(app, [id], queue)[0]


def read_dead_letters(app: Celery, ids: Iterable[str], queue: str | None = None) -> list[Contents]:
    """Return what `read_dead_letter` does of each; raises what it does where one of them is not there."""
    wanted = list(dict.fromkeys(ids))
    with _keeper(app, queue) as opened:
        parts = map(opened.find_dead_letters, _parts(opened, wanted))
        found = [contents(letter) for part in parts for letter in part]
    missing = set(wanted) - {each.letter.id for each in found}
    if missing:
        raise NoSuchDeadLetter(ids=" or ".join(repr(id_) for id_ in wanted if id_ in missing))
    return found


def replay_dead_letters(app: Celery, ids: Iterable[str], queue: str | None = None) -> int:
    """Put dead letters back into their queues as new messages; return how many of the ids there were.

    None is ever lost, whoever dies when. On RabbitMQ one that is replayed at that moment may stay a dead
    letter too; elsewhere it is one or the other. `queue` names one to look in besides those of the
    application. Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    return _act(app, ids, queue, lambda opened, part: opened.replay(part))


def discard_dead_letters(app: Celery, ids: Iterable[str], queue: str | None = None) -> int:
    """Remove dead letters for good; return how many of the ids there were.

    `queue` names one to look in besides those of the application. Raises `NoDeadLetters` where the profile
    keeps none, and `StoreError`.
    """
    return _act(app, ids, queue, lambda opened, part: opened.discard(part))


class _Keeper(Protocol):
    """What a transport knows of its dead letters: a `Store`, or RabbitMQ's queues of them."""

    @property
    def most_ids(self) -> int: ...

    def each_dead_letter(self, queue: str | None = None) -> Generator[store.DeadLetter, None, None]: ...

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[store.DeadLetter]: ...

    def replay(self, ids: Sequence[int | str]) -> int: ...

    def discard(self, ids: Sequence[int | str]) -> int: ...


def _act(
    app: Celery, ids: Iterable[str], queue: str | None, act: Callable[[_Keeper, Sequence[str]], int]
) -> int:
    with _keeper(app, queue) as opened:
        return sum(act(opened, part) for part in _parts(opened, list(dict.fromkeys(ids))))


def _parts(opened: _Keeper, ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), opened.most_ids):
        yield ids[first : first + opened.most_ids]


@contextlib.contextmanager
def _keeper(app: Celery, queue: str | None) -> Iterator[_Keeper]:
    # A connection of its own: those of the pool may be in use by another thread.
    with app.connection_for_write() as connection:
        transport = connection.transport
        keeper = None
        if hasattr(transport, "dead_letters"):
            keeper = transport.dead_letters(connection, _queues(app, queue))
        if keeper is None:
            profile = getattr(app, "broker_profile", None)
            raise NoDeadLetters(profile=profile.name if profile else transport.driver_type)
        yield keeper


def _queues(app: Celery, queue: str | None) -> list[str]:
    """Return the queues that an application says it has, and one more."""
    maps = (route for route in app.amqp.routes if isinstance(route, MapRoute))
    routes = (route for each in maps for route in (*each.map.values(), *each.patterns.values()))
    routed = (route.get("queue") if isinstance(route, dict) else route for route in routes)
    own = (getattr(task, "queue", None) for task in app.tasks.values())
    names = (_name(each) for each in (*app.amqp.queues, *routed, *own, queue))
    return [name for name in dict.fromkeys(names) if name]


def _name(queue: Any) -> str:
    return str(getattr(queue, "name", queue) or "")
