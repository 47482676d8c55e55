"""Dead letters on RabbitMQ: one queue beside each quorum queue, `NAME.dead`.

RabbitMQ moves a message there once it has been delivered too often or was rejected, at least once: it
keeps the message until the dead letter queue has confirmed it. It does not say why a message was rejected:
what there is something to say of is published there, with the reason in a header.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import NotFound
from kombu import Connection

from broker_profiles.profile import version_number
from broker_profiles.transports import envelope
from broker_profiles.transports.store import DeadLetter

_SUFFIX = ".dead"

#: RabbitMQ's words for why, and ours.
_REASONS = {"delivery_limit": "deliveries exhausted", "rejected": "rejected", "expired": "expired"}

#: The header with the reason, the detail and the time of what was not moved by RabbitMQ.
_SET_ASIDE = "x-set-aside"

#: What a dead letter must not take over from its message: it would expire, or RabbitMQ would refuse it.
_NOT_KEPT = ("expiration", "user_id")

#: Headers that RabbitMQ goes by: it would route the dead letter to where they say.
_ROUTING = ("CC", "BCC")

#: Since RabbitMQ 4 a quorum queue drops a message after 20 deliveries unless told otherwise, and each look
#: at a dead letter is a delivery. Earlier versions have no limit, and refuse this value.
_UNLIMITED_SINCE = (4,)
_UNLIMITED = -1

#: Seconds within which RabbitMQ has put back what was looked at.
_GIVEN_BACK = 1.0


def keeps_tasks(arguments: Mapping[str, Any]) -> bool:
    """Return whether a queue of these arguments is one for tasks, and has no place for dead letters yet.

    Those of remote control and of events expire, and those in which delayed messages wait have a place.
    """
    others = ("x-dead-letter-exchange", "x-expires", "x-message-ttl")
    return arguments.get("x-queue-type") == "quorum" and not any(name in arguments for name in others)


def dead_letter_queue(queue: str) -> str:
    """Return the name of the queue that takes the dead letters of another."""
    return queue + _SUFFIX


def with_dead_letters(queue: str, arguments: Mapping[str, Any], delivery_limit: int) -> dict[str, Any]:
    """Return the arguments of a quorum queue whose messages are set aside after so many deliveries."""
    return {
        # RabbitMQ counts returns: one less than deliveries.
        "x-delivery-limit": delivery_limit - 1,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_queue(queue),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        **arguments,
    }


def dead_letter_arguments(server_version: str) -> dict[str, Any]:
    """Return the arguments of a queue of dead letters: it keeps them, however often they are looked at."""
    unlimited = version_number(server_version) >= _UNLIMITED_SINCE
    return {"x-queue-type": "quorum", **({"x-delivery-limit": _UNLIMITED} if unlimited else {})}


def with_reason(message: Any, reason: str, detail: str) -> Message:
    """Return a delivered message as the dead letter to be published."""
    properties = {name: value for name, value in message.properties.items() if name not in _NOT_KEPT}
    headers = properties.get("application_headers") or {}
    said = {"reason": reason, "detail": detail, "time": time.time()}
    properties["application_headers"] = {
        **{name: value for name, value in headers.items() if name not in _ROUTING},
        _SET_ASIDE: said,
    }
    return Message(message.body, **{**properties, "delivery_mode": 2})


class DeadLetters:
    """The dead letters of some queues, read over a connection of their own.

    An id is the queue and the message's own id, for RabbitMQ has no ids. Looking holds the messages for the
    length of the look: another reader does not see them then.
    """

    def __init__(self, connection: Connection, queues: Sequence[str], delivery_limit: int) -> None:
        self._connection = connection
        self._queues = queues
        self._limit = delivery_limit

    def dead_letters(self, queue: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters, of one queue or of all."""
        found: list[DeadLetter] = []
        for name in [queue] if queue else self._queues:
            with self._connection.channel() as channel:
                held = list(_messages(channel, name, limit - len(found)))
                found += [self._dead_letter(name, message) for message in held]
                _give_back(channel, name, [message.delivery_tag for message in held])
        return found

    def replay(self, ids: Sequence[int | str]) -> int:
        """Put dead letters back into their queues as new messages; return how many."""
        return self._each(ids, _publish_again)

    def discard(self, ids: Sequence[int | str]) -> int:
        """Remove dead letters for good; return how many."""
        return self._each(ids, lambda channel, queue, message: None)

    def _dead_letter(self, queue: str, message: Any) -> DeadLetter:
        properties = message.properties or {}
        headers = properties.get("application_headers") or {}
        death = (headers.get("x-death") or [{}])[0]
        died = death.get("time")
        died_at = died.timestamp() if isinstance(died, datetime) else 0.0
        reason = str(headers.get("x-first-death-reason") or death.get("reason") or "")
        said = headers.get(_SET_ASIDE)
        if not isinstance(said, dict):
            said = {}
        parts = {
            "content-type": properties.get("content_type"),
            "content-encoding": properties.get("content_encoding"),
            "headers": {name: headers[name] for name in ("id", "task") if name in headers},
            "properties": {},
            "body": message.body,
        }
        return DeadLetter(
            id=_id(queue, message),
            queue=queue,
            body=envelope.pack(parts),
            priority=int(properties.get("priority") or 0),
            reason=str(said.get("reason") or _REASONS.get(reason, reason)),
            detail=str(said.get("detail") or ""),
            # RabbitMQ counts looks at the dead letter from here on, and tells nothing of before.
            deliveries=self._limit if reason == "delivery_limit" else 1,
            died_at=said["time"] if isinstance(said.get("time"), float) else died_at,
        )

    def _each(self, ids: Sequence[int | str], act: Callable[[Any, str, Any], None]) -> int:
        wanted = {str(id_) for id_ in ids}
        done = 0
        for queue in self._queues:
            with self._connection.channel() as channel:
                held: list[int] = []
                for message in _messages(channel, queue):
                    if _id(queue, message) in wanted:
                        act(channel, queue, message)
                        channel.basic_ack(message.delivery_tag)
                        done += 1
                    else:
                        held.append(message.delivery_tag)
                _give_back(channel, queue, held)
        return done


def _messages(channel: Any, queue: str, limit: int | None = None) -> Iterator[Any]:
    """Yield the messages there are now without acknowledging them.

    Not those that come meanwhile: a message that is put back may be dead again in no time.
    """
    dead = dead_letter_queue(queue)
    try:
        there = channel.queue_declare(dead, passive=True).message_count
    except NotFound:
        return  # nothing has ever been declared there
    for _ in range(there if limit is None else min(there, limit)):
        message = channel.basic_get(dead, no_ack=False)
        if message is None:
            return
        yield message


def _give_back(channel: Any, queue: str, tags: Sequence[int]) -> None:
    """Return what was looked at, and wait for it to be there, or the next look would not find it."""
    for tag in tags:
        channel.basic_reject(tag, requeue=True)
    deadline = time.monotonic() + _GIVEN_BACK
    dead = dead_letter_queue(queue)
    while tags and channel.queue_declare(dead, passive=True).message_count < len(tags):
        if time.monotonic() > deadline:
            return  # somebody else looks at them
        time.sleep(0.01)


def _publish_again(channel: Any, queue: str, message: Any) -> None:
    properties = dict(message.properties)
    headers = dict(properties.pop("application_headers", None) or {})
    for name in [name for name in headers if name.startswith(("x-death", "x-first-death", "x-last-death"))]:
        del headers[name]
    for name in (_SET_ASIDE, "x-delivery-count"):
        headers.pop(name, None)
    again = channel.prepare_message(
        message.body,
        priority=properties.pop("priority", None),
        content_type=properties.pop("content_type", None),
        content_encoding=properties.pop("content_encoding", None),
        headers=headers,
        properties=properties,
    )
    # Into the queue itself: its exchange may have other queues, which had the message already.
    channel.basic_publish(again, exchange="", routing_key=queue, mandatory=True)


def _id(queue: str, message: Any) -> str:
    """Return what names a dead letter: Celery gives every message the id of its task."""
    properties = message.properties or {}
    headers = properties.get("application_headers") or {}
    own = headers.get("id") or properties.get("correlation_id") or properties.get("message_id")
    # What has no id of its own is known by what it holds.
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    return f"{queue}/{own if isinstance(own, str) and own else hashlib.sha256(body).hexdigest()[:32]}"
