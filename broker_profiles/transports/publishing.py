"""From a message of kombu to what a store keeps: where it goes, when, how urgent; one or many at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kombu.exceptions import BatchPublishError

from broker_profiles.errors import StoreError, Unroutable
from broker_profiles.transports import envelope, routing
from broker_profiles.transports.store import Outgoing

if TYPE_CHECKING:
    from broker_profiles.transports.channel import Channel
    from broker_profiles.transports.leased import Transport

_PERSISTENT = 2

#: The most bytes of bodies that one batch holds before it is sent: a tenth of a second on the slowest store.
_BATCH_BYTES = 1_000_000


def outgoing(
    transport: Transport, message: dict[str, Any], exchange: str, routing_key: str
) -> list[Outgoing]:
    """Return a message for every queue it is routed to.

    Raises `Unroutable` for a persistent message that no queue would get.
    """
    properties = message["properties"]
    queues = transport.route(exchange, routing_key)
    if not queues:
        # A broadcast that nobody listens to is not lost: it is for whoever is there.
        broadcast = transport.state.exchanges.get(exchange, {}).get("type") == "fanout"
        if properties.get("delivery_mode") == _PERSISTENT and not broadcast:
            raise Unroutable(exchange=exchange, routing_key=routing_key)
        return []
    properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
    body = envelope.pack(message)
    priority = routing.priority_of(properties)
    delay = routing.delay_of(message["headers"], datetime.now(UTC))
    expires = routing.expiry_of(properties)
    return [Outgoing(queue, body, priority, delay, expires) for queue in queues]


class PublishBatch:
    """Messages that are stored together: what `with producer.batch():` of kombu makes of a channel.

    Each time `max_size` of them, or a megabyte, have come together they are stored, all or none. After an
    error nobody knows which it was, so that it raises `BatchPublishError` and takes no more: sending them
    again could send them twice.
    """

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._waiting: list[tuple[float, Outgoing]] = []
        self._bytes = 0
        self._failed: BaseException | None = None

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Route a message and keep it until the batch is sent. Raises `Unroutable`."""
        if self._failed is not None:
            raise BatchPublishError("this batch has failed and takes no more messages") from self._failed
        now = time.monotonic()
        for found in outgoing(self.channel.connection, message, exchange, routing_key):
            if self._waiting and self._bytes + len(found.body) > _BATCH_BYTES:
                self.flush()
            self._waiting.append((now, found))
            self._bytes += len(found.body)
            if len(self._waiting) >= self._max_size:
                self.flush()

    def flush(self) -> None:
        """Store what waits. Raises `BatchPublishError`."""
        now = time.monotonic()
        messages = [_after(message, now - since) for since, message in self._waiting]
        self.discard()
        if not messages:
            return
        try:
            self.channel.connection.store.publish(messages)
        except BaseException as error:
            self._failed = error
            if not isinstance(error, StoreError):
                raise
            problem = f"{len(messages):,} messages of a batch may be stored or not: {error}"
            raise BatchPublishError(problem) from error

    def discard(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._bytes = 0

    close = discard


def _after(message: Outgoing, seconds: float) -> Outgoing:
    """Return a message as it is after it has waited here for so long: it is due that much sooner."""
    if not message.delay and message.expires is None:
        return message
    expires = None if message.expires is None else message.expires - seconds
    return replace(message, delay=max(0.0, message.delay - seconds), expires=expires)
