"""Dead letters on RabbitMQ: one queue beside each quorum queue, `NAME.dead`.

RabbitMQ moves a message there once it has been delivered too often or was rejected, at least once: it
keeps the message until the dead letter queue has confirmed it. It does not say why a message was rejected:
what there is something to say of is published there, with the reason in a header.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from amqp.basic_message import Message

from broker_profiles.profile import version_number

_SUFFIX = ".dead"

#: The header with the reason, the detail and the time of what was not moved by RabbitMQ.
SET_ASIDE = "x-set-aside"

#: What a dead letter must not take over from its message: it would expire, or RabbitMQ would refuse it.
_NOT_KEPT = ("expiration", "user_id")

#: Headers that RabbitMQ goes by: it would route the dead letter to where they say.
_ROUTING = ("CC", "BCC")

#: Since RabbitMQ 4 a quorum queue drops a message after 20 deliveries unless told otherwise, and each look
#: at a dead letter is a delivery. Earlier versions have no limit, and refuse this value.
_UNLIMITED_SINCE = (4,)
_UNLIMITED = -1


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


def dead_letter_arguments(server_version: str, seconds: float, kept: int) -> dict[str, Any]:
    """Return the arguments of a new queue of dead letters.

    It keeps them however often they are looked at, for so long, and so many of them: the oldest go first.
    """
    unlimited = version_number(server_version) >= _UNLIMITED_SINCE
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": int(seconds * 1000),
        "x-max-length": kept,
        **({"x-delivery-limit": _UNLIMITED} if unlimited else {}),
    }


def deliveries(message: Any) -> int:
    """Return how often a delivered message was delivered, this time included: RabbitMQ counts returns."""
    returns = (message.properties.get("application_headers") or {}).get("x-delivery-count", 0)
    return 1 + (returns if isinstance(returns, int) else 0)


def with_reason(message: Any, reason: str, detail: str) -> Message:
    """Return a delivered message as the dead letter to be published."""
    properties = {name: value for name, value in message.properties.items() if name not in _NOT_KEPT}
    headers = properties.get("application_headers") or {}
    said = {"reason": reason, "detail": detail, "time": time.time(), "deliveries": deliveries(message)}
    properties["application_headers"] = {
        **{name: value for name, value in headers.items() if name not in _ROUTING},
        SET_ASIDE: said,
    }
    return Message(message.body, **{**properties, "delivery_mode": 2})
