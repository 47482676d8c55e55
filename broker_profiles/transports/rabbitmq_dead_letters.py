"""Looking at the dead letters of RabbitMQ, replaying and discarding them.

A queue is no table: who looks at a message holds it, and gives it back. RabbitMQ keeps what is held, so that
a reader who dies on the way has taken nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar

from amqp.exceptions import NotFound
from kombu import Connection

from broker_profiles.transports import envelope
from broker_profiles.transports.rabbitmq_dead import SET_ASIDE, dead_letter_queue
from broker_profiles.transports.store import PAGE, SHOWN, DeadLetter

#: RabbitMQ's words for why, and ours.
_REASONS = {"delivery_limit": "deliveries exhausted", "rejected": "rejected", "expired": "expired"}

#: The header of what was replayed, with the time: RabbitMQ notes a death by the second, and a message may
#: die twice within one.
_REPLAYED = "x-replayed"

#: What RabbitMQ changes in a dead letter whenever it is looked at.
_CHANGING = ("x-delivery-count", "x-acquired-count")

#: What the headers that tell of a death begin with; a replayed message has none.
_OF_A_DEATH = ("x-death", "x-first-death", "x-last-death", SET_ASIDE, *_CHANGING)

#: Seconds within which RabbitMQ has put back what was looked at.
_GIVEN_BACK = 1.0


class DeadLetters:
    """The dead letters of some queues, read over a connection of their own.

    RabbitMQ has no ids: one is made of all that a dead letter is, the time of its death included. Looking
    holds the messages for the length of the look: another reader does not see them then.
    """

    #: All, for each call looks at every dead letter.
    most_ids: ClassVar[int] = sys.maxsize

    def __init__(self, connection: Connection, queues: Sequence[str], delivery_limit: int) -> None:
        self._connection = connection
        self._queues = queues
        self._limit = delivery_limit

    def each_dead_letter(self, queue: str | None = None) -> Generator[DeadLetter, None, None]:
        """Yield the dead letters there are now, queue by queue, in RabbitMQ's order.

        That is the oldest first, but what is given back comes behind what was not looked at. They are given
        back when the iteration ends or is closed; until then RabbitMQ holds them, not we.
        """
        for name in [queue] if queue else self._queues:
            with closing(self._look(name)) as looked:
                for found in looked:
                    yield self._dead_letter(found)

    def dead_letters(self, queue: str | None = None, limit: int = PAGE) -> list[DeadLetter]:
        """Return the first dead letters, of one queue or of all."""
        with closing(self.each_dead_letter(queue)) as letters:
            return list(islice(letters, limit))

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Return the dead letters of these ids, as far as they are there."""
        wanted = {str(id_) for id_ in ids}
        with closing(self.each_dead_letter()) as letters:
            return [letter for letter in letters if letter.id in wanted]

    def replay(self, ids: Sequence[int | str]) -> int:
        """Put dead letters back into their queues as new messages; return how many.

        A dead letter leaves once RabbitMQ has confirmed its message: who dies between the two leaves both,
        and a second replay sends the message twice. None is lost.
        """
        return self._each(ids, _publish_again)

    def discard(self, ids: Sequence[int | str]) -> int:
        """Remove dead letters for good; return how many."""
        return self._each(ids, lambda found: None)

    def _dead_letter(self, found: _Found) -> DeadLetter:
        message = found.message
        properties = message.properties or {}
        headers = properties.get("application_headers") or {}
        death = (headers.get("x-death") or [{}])[0]
        died = death.get("time")
        died_at = died.timestamp() if isinstance(died, datetime) else 0.0
        reason = str(headers.get("x-first-death-reason") or death.get("reason") or "")
        said = headers.get(SET_ASIDE)
        if not isinstance(said, dict):
            said = {}
        body = _bytes(message.body)
        parts = {
            "content-type": properties.get("content_type"),
            "content-encoding": properties.get("content_encoding"),
            "headers": {name: _plain(value) for name, value in headers.items() if name != SET_ASIDE},
            "properties": {},
            "body": body,
        }
        return DeadLetter(
            id=found.id,
            queue=found.queue,
            body=envelope.pack(parts)[:SHOWN],
            priority=int(properties.get("priority") or 0),
            reason=str(said.get("reason") or _REASONS.get(reason, reason)),
            detail=str(said.get("detail") or ""),
            deliveries=self._deliveries(said, reason),
            died_at=said["time"] if isinstance(said.get("time"), float) else died_at,
            size=len(body),
        )

    def _deliveries(self, said: Mapping[str, Any], reason: str) -> int:
        # RabbitMQ counts looks at the dead letter from here on, and tells nothing of before.
        if isinstance(said.get("deliveries"), int):
            return int(said["deliveries"])
        return self._limit if reason == "delivery_limit" else 1

    def _each(self, ids: Sequence[int | str], act: Callable[[_Found], None]) -> int:
        wanted = {str(id_) for id_ in ids}
        done = 0
        for queue in self._queues if wanted else ():
            with closing(self._look(queue)) as looked:
                for found in looked:
                    if found.id in wanted:
                        act(found)
                        found.remove()
                        done += 1
        return done

    def _look(self, queue: str) -> Generator[_Found, None, None]:
        """Yield the dead letters there are now; give back, at the end, those that were not removed."""
        held: dict[int, None] = {}
        copies: Counter[str] = Counter()
        with self._connection.channel() as channel:
            try:
                for message in _messages(channel, queue):
                    held[message.delivery_tag] = None
                    id_ = _id(queue, message)
                    copies[id_] += 1
                    # Two that differ in nothing are told apart by which comes first.
                    name = id_ if copies[id_] == 1 else f"{id_}-{copies[id_]}"
                    yield _Found(channel, queue, name, message, held)
            finally:
                if channel.is_open:
                    _give_back(channel, queue, list(held))


@dataclass(frozen=True, slots=True)
class _Found:
    """A dead letter that is being looked at, on its channel, among what that channel holds."""

    channel: Any
    queue: str
    id: str
    message: Any
    held: dict[int, None]

    def remove(self) -> None:
        """Take the message off its queue for good."""
        self.channel.basic_ack(self.message.delivery_tag)
        del self.held[self.message.delivery_tag]


def _messages(channel: Any, queue: str) -> Iterator[Any]:
    """Yield the messages there are now without acknowledging them.

    Not those that come meanwhile: a message that is put back may be dead again in no time.
    """
    dead = dead_letter_queue(queue)
    try:
        there = channel.queue_declare(dead, passive=True).message_count
    except NotFound:
        return  # nothing has ever been declared there
    for _ in range(there):
        message = channel.basic_get(dead, no_ack=False)
        if message is None:
            return
        yield message


def _give_back(channel: Any, queue: str, tags: Sequence[int]) -> None:
    """Return what was looked at, and wait for it to be there, or the next look would come before it."""
    if not tags:
        return
    dead = dead_letter_queue(queue)
    others = channel.queue_declare(dead, passive=True).message_count
    for tag in tags:
        channel.basic_reject(tag, requeue=True)
    deadline = time.monotonic() + _GIVEN_BACK
    while channel.queue_declare(dead, passive=True).message_count < others + len(tags):
        if time.monotonic() > deadline:
            return  # somebody else looks at them
        time.sleep(0.01)


def _publish_again(found: _Found) -> None:
    """Send a dead letter to its queue, and wait until RabbitMQ has confirmed it. Raises `Unroutable`."""
    properties = dict(found.message.properties)
    headers = dict(properties.pop("application_headers", None) or {})
    for name in [name for name in headers if name.startswith(_OF_A_DEATH)]:
        del headers[name]
    again = found.channel.prepare_message(
        found.message.body,
        priority=properties.pop("priority", None),
        content_type=properties.pop("content_type", None),
        content_encoding=properties.pop("content_encoding", None),
        headers={**headers, _REPLAYED: time.time()},
        properties=properties,
    )
    # Into the queue itself: its exchange may have other queues, which had the message already.
    found.channel.basic_publish(again, exchange="", routing_key=found.queue, mandatory=True)


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def _plain(value: Any) -> Any:
    """Return what a header holds as JSON can hold it."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _id(queue: str, message: Any) -> str:
    """Return what names a dead letter, whatever its own ids and its queue's name hold: a digest of it all."""
    properties = _plain(message.properties or {})
    headers = properties.get("application_headers") or {}
    properties["application_headers"] = {
        name: value for name, value in headers.items() if name not in _CHANGING
    }
    told = hashlib.sha256(json.dumps([queue, properties], sort_keys=True).encode())
    told.update(_bytes(message.body))
    return told.hexdigest()[:20]
