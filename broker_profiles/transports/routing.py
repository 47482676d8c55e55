"""Which queues a message goes to, and when: pure decisions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9

#: The kind of an exchange that another process declared.
UNKNOWN = "unknown"

#: What RabbitMQ's native delayed delivery puts before a routing key: a bit for each power of two of seconds.
DELAYED_KEY = re.compile(r"^(?:[01]\.){28}")

#: How far ahead the eta of a message that has been delayed may be, in seconds: stores keep milliseconds,
#: and RabbitMQ counts whole seconds.
_NOT_YET = 1.0


def route(kind: str, bindings: Iterable[tuple[str, str]], routing_key: str) -> list[str]:
    """Return the queues that an exchange of this kind (direct, topic, fanout) sends a message to.

    One of an unknown kind sends it where any of the three would: fanout queues are bound without a key.
    """
    if kind == UNKNOWN:
        queues = {queue for key, queue in bindings if not key or topic_matches(key, routing_key)}
    elif kind == "fanout":
        queues = {queue for _, queue in bindings}
    elif kind == "topic":
        queues = {queue for key, queue in bindings if topic_matches(key, routing_key)}
    else:
        queues = {queue for key, queue in bindings if key == routing_key}
    return sorted(queues)


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether a binding key fits: `*` is one word, `#` any number of them."""
    return _compiled(pattern).fullmatch(routing_key) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = ""
    for position, word in enumerate(pattern.split(".")):
        first = position == 0
        if word == "#":
            text += r"(?:[^.]+(?:\.[^.]+)*)?" if first else r"(?:\.[^.]+)*"
        else:
            text += ("" if first else r"\.") + (r"[^.]+" if word == "*" else re.escape(word))
    # A leading `#` may stand for no word at all, and then its dot goes too.
    if pattern.startswith("#."):
        text = r"(?:[^.]+\.)*" + text.removeprefix(r"(?:[^.]+(?:\.[^.]+)*)?\.")
    return re.compile(text)


def priority_of(properties: dict[str, Any]) -> int:
    """Return the priority of a message, 0 (the lowest) where it has none; outside 0 to 9, the nearest."""
    try:
        value = int(properties.get("priority") or LOWEST_PRIORITY)
    except (TypeError, ValueError):
        return LOWEST_PRIORITY
    return min(max(value, LOWEST_PRIORITY), HIGHEST_PRIORITY)


def delay_of(headers: dict[str, Any], now: datetime) -> float:
    """Return the seconds until the `eta` of a task message, 0 for none or one that is past."""
    eta = headers.get("eta")
    if not eta:
        return 0.0
    try:
        when = datetime.fromisoformat(eta)
    except (TypeError, ValueError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def now_due(headers: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the headers of a task that was delayed until its `eta`, and is delivered.

    Without an `eta` that is still ahead: then the clock of this process is behind, and its worker, which
    goes by it, would wait once more.
    """
    return {**headers, "eta": None} if delay_of(headers, now) > _NOT_YET else headers


def expiry_of(properties: dict[str, Any]) -> float | None:
    """Return the seconds after which a message expires (kombu keeps milliseconds as text), or None."""
    expiration = properties.get("expiration")
    return None if expiration is None else int(expiration) / 1000
