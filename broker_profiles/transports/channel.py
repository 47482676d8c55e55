"""A channel of the leased transport: its consumers, its prefetch count, the receipts of what it holds."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.message import Message as KombuMessage
from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments

from broker_profiles.errors import BrokerProfilesError
from broker_profiles.transports import envelope, failing, publishing, routing, validity
from broker_profiles.transports.once import once_for
from broker_profiles.transports.readahead import ReadAhead
from broker_profiles.transports.reading import Readable
from broker_profiles.transports.store import (
    DELIVERIES_EXHAUSTED,
    REJECTED,
    UNREADABLE,
    Delivery,
    Receipt,
    Sizes,
)

if TYPE_CHECKING:
    from broker_profiles.transports.leased import Transport

logger = logging.getLogger(__name__)

#: The most messages one reservation asks for where the consumer sets no limit.
_BATCH = 100

#: Seconds after which an auto-delete queue that names no expiry is removed, unused.
_AUTO_DELETE_AFTER = 300.0


class Consumer(NamedTuple):
    """Who gets the messages of a queue."""

    queue: str
    no_ack: bool
    callback: Callable[[Any], None]


class Message(Readable, KombuMessage):  # type: ignore[misc]
    """A delivered message; one that cannot be decoded is set aside when it is acknowledged."""


class Channel(virtual.Channel):  # type: ignore[misc]
    """A channel: its consumers, its prefetch count, and the receipts of what it holds."""

    Message = Message
    supports_fanout = True

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.prefetch_count = 0
        self._by_queue: dict[str, Consumer] = {}
        self._tags: dict[str, str] = {}
        self._held: dict[int, Receipt] = {}
        self._unreadable: dict[int, str] = {}
        #: How the task of a message that is held has failed, and which delivery this was.
        self._failures: dict[int, tuple[str, int]] = {}
        self._turn = 0
        self.ahead = ReadAhead()
        #: Whether the queues had nothing left when they were last asked.
        self.dry = False
        self.closed = False

    # -- publishing -------------------------------------------------------------------------------

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Store a message in every queue it is routed to.

        Raises `Unroutable` for a persistent message that no queue would get, and `AlreadySent` for one that
        was to be sent once and was.
        """
        messages = publishing.outgoing(self.connection, message, exchange, routing_key)
        once = once_for(message, self.connection.client.hostname)
        if once is not None:
            once.publish(self.connection.store, messages)
        elif messages:
            self.connection.store.publish(messages)

    def create_publish_batch(self, max_size: int) -> publishing.PublishBatch:
        """Return what collects up to so many messages and stores them at once."""
        return publishing.PublishBatch(self, max_size)

    # -- queues -----------------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: Any, **options: Any) -> Any:
        """Return the arguments with expiry and message TTL among them, as RabbitMQ names them."""
        return to_rabbitmq_queue_arguments(arguments or {}, **options)

    def _new_queue(self, queue: str, auto_delete: bool = False, arguments: Any = None, **_: Any) -> None:
        arguments = arguments or {}
        expires = _seconds(arguments.get("x-expires"))
        if expires is None and auto_delete:
            expires = _AUTO_DELETE_AFTER
        ttl = _seconds(arguments.get("x-message-ttl"))
        self.connection.store.declare(queue, expires=expires, message_ttl=ttl)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        known: bool = self.connection.store.exists(queue)
        return known

    def _size(self, queue: str) -> int:
        sizes: Sizes = self.connection.store.sizes(queue)
        return sizes.ready + sizes.delayed

    def _purge(self, queue: str) -> int:
        purged: int = self.connection.store.purge(queue)
        return purged

    def queue_bind(self, queue: str, exchange: str | None = None, routing_key: str = "", **_: Any) -> None:
        """Bind a queue for every process, not for this one alone."""
        self.connection.store.bind(exchange or "amq.direct", routing_key, queue)

    def queue_unbind(self, queue: str, exchange: str | None = None, routing_key: str = "", **_: Any) -> None:
        """Take a binding away."""
        self.connection.store.unbind(exchange or "amq.direct", routing_key, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:
        """Remove a queue with its messages."""
        if not (if_empty and self._size(queue)):
            self.connection.store.drop(queue)

    def get_table(self, exchange: str) -> list[tuple[str, None, str]]:
        """Return the bindings of an exchange in kombu's form."""
        return [(key, None, queue) for key, queue in self.connection.store.bindings(exchange)]

    # -- consuming --------------------------------------------------------------------------------

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,
        callback: Callable[[Any], None],
        consumer_tag: str,
        **_: Any,
    ) -> None:
        """Deliver the messages of a queue to a callback."""
        self._by_queue[queue] = Consumer(queue, no_ack, callback)
        self._tags[consumer_tag] = queue
        self.dry = False
        self.connection.on_consuming()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop delivering."""
        queue = self._tags.pop(consumer_tag, None)
        if queue is not None and queue not in self._tags.values():
            self._by_queue.pop(queue, None)
            self.give_back(self.ahead.take_stale(everything=True))

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Hold at most so many unacknowledged messages; 0 for no limit."""
        self.prefetch_count = prefetch_count
        self.connection.wake()

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> KombuMessage | None:
        """Return one message of a queue, or None."""
        self.connection.on_consuming()
        for delivery in self.connection.reserve([queue], 1):
            return self._message(delivery, no_ack=no_ack)
        return None

    @property
    def queues(self) -> list[str]:
        """The queues consumed, beginning with another one each time."""
        names = list(self._by_queue)
        if len(names) > 1:
            self._turn = (self._turn + 1) % len(names)
            names = names[self._turn :] + names[: self._turn]
        return names

    def room(self) -> int:
        """Return how many more messages may be delivered now."""
        if not self._by_queue:
            return 0
        if not self.prefetch_count:
            return _BATCH
        return max(0, self.prefetch_count - len(self._held))

    def fetch(self) -> list[Delivery]:
        """Return what may be delivered now: first what lies aside, then from the store."""
        room = self.room()
        if not room:
            return []
        taken = self.ahead.take(room)
        room -= len(taken)
        if room:
            # What is too old to be taken comes back with this reservation, before what was sent after it.
            self.give_back(self.ahead.take_stale())
            extra = self.ahead.extra if self.prefetch_count else 0
            reserved = self.connection.reserve(self.queues, room + extra)
            self.dry = len(reserved) < room
            taken += reserved[:room]
            self.ahead.fill(reserved[room:])
        return taken

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return messages that nobody has worked on."""
        if deliveries:
            self.connection.settlements.release([delivery.receipt for delivery in deliveries], counted=False)

    def deliver_all(self, deliveries: list[Delivery]) -> int:
        """Deliver these in order and return how many they were; after an error the rest is given back."""
        waiting = deque(deliveries)
        try:
            while waiting:
                self.deliver(waiting.popleft())
        finally:
            self.give_back(list(waiting))
        return len(deliveries)

    def deliver(self, delivery: Delivery) -> None:
        """Hand a message to its consumer; give it back if there is none any more."""
        consumer = self._by_queue.get(delivery.queue)
        if consumer is None:
            self.give_back([delivery])
            return
        message = self._message(delivery, no_ack=consumer.no_ack)
        if message is None:
            return
        try:
            consumer.callback(message)
        except self.connection.connection_errors:
            raise
        except Exception as error:
            receipt = self._held.pop(message.delivery_tag, None)
            if receipt is None:
                raise
            if "task" not in message.headers:
                self.connection.settlements.release([receipt], counted=True)
                raise
            # Celery could not even read what the message says of its task.
            logger.exception("A message cannot be read and is set aside")
            self.connection.settlements.set_aside(receipt, UNREADABLE, validity.text_of(error))

    def _message(self, delivery: Delivery, *, no_ack: bool) -> KombuMessage | None:
        try:
            parts = envelope.unpack(delivery.body)
        except envelope.UnreadableEnvelope as error:
            self.connection.settlements.set_aside(delivery.receipt, UNREADABLE, str(error))
            return None
        problem = validity.problem_with(parts.headers)
        if problem:
            self.connection.settlements.set_aside(delivery.receipt, UNREADABLE, problem)
            return None
        tag = self.connection.next_tag()
        if no_ack:
            self.connection.settlements.settle(delivery.receipt)
        else:
            self._held[tag] = delivery.receipt
        info = parts.properties.get("delivery_info")
        info = info if isinstance(info, dict) else {}
        info.update(
            priority=delivery.priority,
            redelivered=delivery.deliveries > 1,
            delivery_count=delivery.deliveries,
        )
        message = self.Message(
            channel=self,
            body=parts.body,
            delivery_tag=tag,
            content_type=parts.content_type,
            content_encoding=parts.content_encoding,
            headers=routing.now_due(parts.headers, datetime.now(UTC)),
            properties=parts.properties,
            delivery_info=info,
        )
        if message.errors and not no_ack:
            # Its consumer hears of it, and acknowledges it as it does any that it cannot decode.
            self.note_unreadable(tag, message.errors[0][1])
        return message

    # -- settling ---------------------------------------------------------------------------------

    def note_unreadable(self, delivery_tag: int, error: Exception) -> None:
        """Remember why a message could not be decoded."""
        self._unreadable[delivery_tag] = validity.text_of(error)

    def note_failure(self, message: KombuMessage, failure: str) -> None:
        """Remember how the task of a message has failed, for its dead letter should it become one."""
        if message.delivery_tag in self._held:
            self._failures[message.delivery_tag] = failure, message.delivery_info["delivery_count"]

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, soon; from any thread."""
        self._failures.pop(delivery_tag, None)
        receipt = self._held.pop(delivery_tag, None)
        reason = self._unreadable.pop(delivery_tag, None)
        if receipt is None:
            return
        if reason is None:
            self.connection.settlements.settle(receipt)
        else:
            self.connection.settlements.set_aside(receipt, UNREADABLE, reason)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Put a message back, counting the delivery, or make a dead letter of it; from any thread."""
        receipt = self._held.pop(delivery_tag, None)
        failure, deliveries = self._failures.pop(delivery_tag, ("", 0))
        if receipt is None:
            return
        if requeue and failure and deliveries >= self.connection.delivery_limit:
            # It would become a dead letter at the next reservation, by somebody who knows nothing of this.
            detail = failing.exhausted(deliveries, failure)
            self.connection.settlements.set_aside(receipt, DELIVERIES_EXHAUSTED, detail)
            return
        if requeue:
            self.connection.settlements.release([receipt], counted=True)
            return
        unreadable = self._unreadable.pop(delivery_tag, "")
        if unreadable:
            self.connection.settlements.set_aside(receipt, UNREADABLE, unreadable)
            return
        # Celery rejects a message it has no task for, or cannot use, while it handles the error that says so.
        reason, detail = (REJECTED, failure) if failure else failing.why_rejected(sys.exception())
        self.connection.settlements.set_aside(receipt, reason, detail)

    def basic_recover(self, requeue: bool = False) -> None:
        """Put back everything that this channel holds."""
        self._put_back(counted=False)

    def _put_back(self, *, counted: bool) -> None:
        # A pool thread may acknowledge one of them meanwhile.
        popped = [self._held.pop(tag, None) for tag in list(self._held)]
        receipts = [receipt for receipt in popped if receipt is not None]
        if receipts:
            self.connection.settlements.release(receipts, counted=counted)
        self.give_back(self.ahead.take_stale(everything=True))

    def close(self) -> None:
        """Put back what is held and stop consuming; does nothing in a forked child."""
        if self.closed:
            return
        self.closed = True
        self._tags.clear()
        self._by_queue.clear()
        transport = self.connection
        if transport is not None:
            try:
                if transport.of_this_process:
                    transport.settlements.flush()
                    self._put_back(counted=self._is_ending_of_an_error())
            finally:
                # What could not be given back comes back when the lease ends; a late acknowledgement
                # of it has to find nothing here.
                self._held.clear()
                self._unreadable.clear()
                self._failures.clear()
                transport.close_channel(self)
        self.exchange_types = None

    def _is_ending_of_an_error(self) -> bool:
        """Return whether the worker ends of something that one of its messages may have done to it.

        Celery closes its connections while it handles what it ends of, such as the `MemoryError` of a task:
        uncounted, that message would end one worker after the other. A shutdown is none of its doing, nor
        is an error of the store or the network.
        """
        error = sys.exception()
        ours = (*self.connection.connection_errors, *self.connection.channel_errors, BrokerProfilesError)
        return isinstance(error, Exception) and not isinstance(error, ours)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
