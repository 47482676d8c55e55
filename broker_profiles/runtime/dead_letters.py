"""Dead letters, the same on every broker that keeps them: list, replay, discard.

A message is set aside with its reason when it has been delivered too often, was rejected, or cannot be
read. It stays until a person has looked at it and either replays or discards it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from celery import Celery

from broker_profiles.errors import NoDeadLetters
from broker_profiles.transports import envelope, store


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message set aside.

    `reason` is `deliveries exhausted`, `rejected` or `unreadable`, and `detail` what is known beyond that.
    `deliveries` is how often it was delivered, as far as the broker says. `task` and `task_id` are empty
    where the message does not say.
    """

    #: Names this dead letter in `replay_dead_letters` and `discard_dead_letters`.
    id: str
    queue: str
    reason: str
    detail: str
    deliveries: int
    task: str
    task_id: str
    died_at: datetime


def list_dead_letters(app: Celery, queue: str | None = None, limit: int = 100) -> list[DeadLetter]:
    """Return the oldest dead letters of a queue, or of all queues.

    Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    with _keeper(app) as opened:
        return [_shown(letter) for letter in opened.dead_letters(queue, limit)]


def replay_dead_letters(app: Celery, ids: Iterable[str]) -> int:
    """Put dead letters back into their queues as new messages; return how many of the ids there were.

    Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    with _keeper(app) as opened:
        return opened.replay(list(ids))


def discard_dead_letters(app: Celery, ids: Iterable[str]) -> int:
    """Remove dead letters for good; return how many of the ids there were.

    Raises `NoDeadLetters` where the profile keeps none, and `StoreError`.
    """
    with _keeper(app) as opened:
        return opened.discard(list(ids))


class _Keeper(Protocol):
    """What a transport knows of its dead letters: a `Store`, or RabbitMQ's queues of them."""

    def dead_letters(self, queue: str | None = None, limit: int = 100) -> list[store.DeadLetter]: ...

    def replay(self, ids: Sequence[int | str]) -> int: ...

    def discard(self, ids: Sequence[int | str]) -> int: ...


@contextlib.contextmanager
def _keeper(app: Celery) -> Iterator[_Keeper]:
    # A connection of its own: those of the pool may be in use by another thread.
    with app.connection_for_write() as connection:
        transport = connection.transport
        keeper = None
        if hasattr(transport, "dead_letters"):
            keeper = transport.dead_letters(connection, list(app.amqp.queues))
        if keeper is None:
            profile = getattr(app, "broker_profile", None)
            raise NoDeadLetters(profile=profile.name if profile else transport.driver_type)
        yield keeper


def _shown(letter: store.DeadLetter) -> DeadLetter:
    headers = _headers(letter.body)
    return DeadLetter(
        id=str(letter.id),
        queue=letter.queue,
        reason=letter.reason,
        detail=letter.detail,
        deliveries=letter.deliveries,
        task=_text(headers.get("task")),
        task_id=_text(headers.get("id")),
        died_at=datetime.fromtimestamp(letter.died_at, UTC),
    )


def _headers(body: bytes) -> dict[str, Any]:
    try:
        return envelope.unpack(body).headers
    except envelope.UnreadableEnvelope:
        return {}


def _text(value: Any) -> str:
    """Return a header's text; what lies here may be here because its headers are of wrong types."""
    return value if isinstance(value, str) else ""
