"""Delayed tasks on RabbitMQ, whether a worker has ever run or not.

Celery's workers declare what native delayed delivery needs when they start. Before the first one has,
RabbitMQ refuses a delayed task; and where only the task's queue is new, it has nowhere to put the task
when it is due. So here whoever sends a delayed task declares all that, once in a connection.
"""

from __future__ import annotations

from typing import Any

from celery.app import amqp
from kombu import Connection, Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from broker_profiles.runtime.connection import Reconnecting
from broker_profiles.transports.routing import DELAYED_KEY, topic_matches

#: Where every delayed task is sent to.
_ENTRY = level_name(MAX_LEVEL)


class DelayedQueue:
    """A queue, the delays before it, and its binding to them: for a producer one thing to declare."""

    can_cache_declaration = True

    def __init__(self, queue: Queue, delays_type: str, channel: Any = None) -> None:
        self.name = queue.name
        self.channel = channel
        self._queue = queue
        self._delays_type = delays_type

    @property
    def is_bound(self) -> bool:
        """Whether it is known on which channel to declare it."""
        return self.channel is not None

    def bind(self, channel: Any) -> DelayedQueue:
        """Return the same, to be declared on a channel."""
        return DelayedQueue(self._queue, self._delays_type, channel)

    def revive(self, channel: Any) -> None:
        """Go on with another channel, after the connection was lost."""
        self.channel = channel

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DelayedQueue) and other.name == self.name

    def declare(self, channel: Any) -> None:
        """Declare what is not there."""
        self._queue.bind(channel).declare()
        connection: Connection = channel.connection.client
        if not _are_there(connection):
            declare_native_delayed_delivery_exchanges_and_queues(connection, self._delays_type)
        bind_queue_to_native_delayed_delivery_exchange(connection, self._queue)


def _are_there(connection: Connection) -> bool:
    """Return whether the delays are there: their last exchange is declared when all the rest is."""
    # On a channel of its own, for RabbitMQ closes it where there is no such exchange.
    try:
        with connection.channel() as channel:
            Exchange(CELERY_DELAYED_DELIVERY_EXCHANGE, "topic", channel=channel).declare(passive=True)
    except connection.channel_errors:
        return False
    return True


class AMQP(amqp.AMQP):  # type: ignore[misc]
    """Celery's way of sending a task, with what a delayed one needs, on connections that come back soon."""

    Connection = Reconnecting

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            exchange = options.get("exchange")
            if isinstance(exchange, Exchange) and exchange.name == _ENTRY:
                needed = self._delayed_queues(options.get("routing_key") or "")
                options["declare"] = [*(options.get("declare") or ()), *needed]
            return send(producer, name, message, **options)

        return send_task_message

    def _delayed_queues(self, routing_key: str) -> list[DelayedQueue]:
        key = DELAYED_KEY.sub("", routing_key)
        delays_type = self.app.conf.broker_native_delayed_delivery_queue_type
        return [
            DelayedQueue(queue, delays_type)
            for queue in self.queues.values()
            if topic_matches(queue.routing_key or "", key)
        ]
