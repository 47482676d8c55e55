"""py-amqp with an end to every wait of a publisher, and a prefetch that can be changed on quorum queues."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from amqp import spec
from amqp.exceptions import PreconditionFailed, RecoverableConnectionError
from kombu import Connection as KombuConnection
from kombu.transport import pyamqp

from broker_profiles.errors import QueueDiffers, Unroutable
from broker_profiles.transports import (
    rabbitmq_dead,
    rabbitmq_dead_letters,
    rabbitmq_new_queues,
    rabbitmq_patience,
    rabbitmq_unreadable,
    routing,
)
from broker_profiles.transports.rabbitmq_heartbeat import Beating
from broker_profiles.transports.rabbitmq_unreadable import Aside, Reading
from broker_profiles.transports.store import KEPT, KEPT_SECONDS

#: Seconds, where `broker_transport_options` names none.
DEFAULT_TIMEOUT = 3.0

#: Seconds for a broadcast: a worker's loop sends events, and finds a dead connection no sooner than it waits.
_BROADCAST_TIMEOUT = 1.0

#: Seconds after which RabbitMQ is asked whether it is there, where nothing is confirmed.
_ASK_EVERY = 3.0

_PERSISTENT = 2


class Message(rabbitmq_unreadable.Message):
    """A delivered message; what RabbitMQ has delayed is due, whatever the clock here says."""

    headers: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if routing.DELAYED_KEY.match(self.delivery_info.get("routing_key") or ""):
            self.headers = routing.now_due(self.headers, datetime.now(UTC))


@dataclass(slots=True)
class _Consumer:
    """How a consumer was begun, and the prefetch of each of its parts, by their tags."""

    queue: str
    options: dict[str, Any]
    parts: dict[str, int]
    begun: int = 1


class Channel(Reading, pyamqp.Channel):  # type: ignore[misc]
    """A channel whose publisher confirms are waited for so long and no longer.

    Celery changes the prefetch of a consumer that runs, when its pool grows above all. RabbitMQ takes a
    new prefetch for consumers that come later, or for a whole channel, which quorum queues know not. So
    with `adjustable_prefetch` a consumer has parts that share its prefetch, and changes by a part more or
    less: one that is ended keeps what it holds until that is acknowledged.
    """

    Message = Message

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prefetch = 0
        #: Whether the message that was published last reached no queue.
        self._returned = False
        #: When RabbitMQ was last known to be there.
        self._asked = time.monotonic()
        self._consumers: dict[str, _Consumer] = {}

    def basic_consume(self, queue: str = "", consumer_tag: str = "", **options: Any) -> Any:
        """Begin to consume, and remember how."""
        callback = options.get("callback")
        if callback and queue in self.connection.with_dead_letters and not options.get("no_ack"):
            options["callback"] = self.reading(queue, callback)
        tag = super().basic_consume(queue, consumer_tag, **options)
        self._consumers[tag] = _Consumer(queue, options, {tag: self._prefetch})
        self.connection.begin_to_beat()
        return tag

    def basic_cancel(self, consumer_tag: str, **options: Any) -> None:
        """End a consumer, with all its parts."""
        consumer = self._consumers.pop(consumer_tag, None)
        for tag in consumer.parts if consumer else (consumer_tag,):
            super().basic_cancel(tag, **options)

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool, **options: Any) -> None:
        """Change the prefetch, of the consumers that there are too."""
        super().basic_qos(prefetch_size, prefetch_count, a_global, **options)
        if a_global or not prefetch_count or not self.connection.adjustable_prefetch:
            return
        self._prefetch = prefetch_count
        for tag, consumer in list(self._consumers.items()):
            self._fit(tag, consumer)

    def _fit(self, tag: str, consumer: _Consumer) -> None:
        while (missing := self._prefetch - sum(consumer.parts.values())) < 0:
            part, _ = consumer.parts.popitem()
            super().basic_cancel(part)
        if missing:
            part = f"{tag}.{consumer.begun}"
            consumer.begun += 1
            super().basic_qos(0, missing, False)
            super().basic_consume(consumer.queue, part, **consumer.options)
            consumer.parts[part] = missing
            super().basic_qos(0, self._prefetch, False)

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Any = None,
    ) -> Any:
        """Declare a queue, and one beside it for the dead letters of a queue for tasks.

        A quorum queue is there for good when this returns. Raises `QueueDiffers` where it exists with other
        arguments.
        """
        declare = super().queue_declare
        if passive:
            return declare(queue, passive, durable, exclusive, auto_delete, nowait, arguments)
        version = str(self.connection.server_properties.get("version", ""))
        arguments = rabbitmq_patience.with_patience(arguments or {}, version)
        limit, dead = self.connection.delivery_limit, ""
        if limit and rabbitmq_dead.keeps_tasks(arguments):
            dead = rabbitmq_dead.dead_letter_queue(queue)
            arguments = rabbitmq_dead.with_dead_letters(queue, arguments, limit)
        is_new = True
        with contextlib.ExitStack() as stack:
            if rabbitmq_new_queues.has_to_last(queue, arguments):
                writing = rabbitmq_new_queues.written_down(self.connection, dead or queue)
                is_new = stack.enter_context(writing)
            try:
                declared = declare(queue, passive, durable, exclusive, auto_delete, nowait, arguments)
            except PreconditionFailed as error:
                raise QueueDiffers(queue=queue, problem=error.reply_text) from None
            if dead:
                self.connection.with_dead_letters.add(queue)
            if dead and is_new:
                self._declare_dead_letters(dead, version)
        return declared

    def _declare_dead_letters(self, queue: str, version: str) -> None:
        """Declare a queue of dead letters; one that is there keeps the arguments it was made with.

        Another process may have made it meanwhile. RabbitMQ closes the channel that it refuses others on.
        """
        arguments = rabbitmq_dead.dead_letter_arguments(version, *self.connection.retention)
        with self.connection.channel() as channel, contextlib.suppress(PreconditionFailed):
            super(Channel, channel).queue_declare(queue, False, True, False, False, False, arguments)

    def basic_publish(self, message: Any, **kwargs: Any) -> Any:
        """Publish without a confirm, and ask now and then whether RabbitMQ is there.

        Nothing else tells of a dead connection that takes whatever is sent. Raises `TimeoutError` where no
        answer comes.
        """
        if self.connection is not None and time.monotonic() > self._asked + _ASK_EVERY:
            seconds = self.connection.confirm_timeout if _is_task(message) else _BROADCAST_TIMEOUT
            self._ask(seconds)
        return super().basic_publish(message, **kwargs)

    def _ask(self, seconds: float) -> None:
        """Return once RabbitMQ has taken what was published before; what is asked for changes nothing."""
        try:
            self.send_method(spec.Channel.Flow, "b", (True,))
            self.wait(spec.Channel.FlowOk, timeout=seconds)
        except TimeoutError:
            if self.connection is not None:
                self.connection.collect()
            raise TimeoutError(f"RabbitMQ has not answered within {seconds:g} s") from None
        self._asked = time.monotonic()

    def basic_publish_confirm(self, message: Any, **kwargs: Any) -> Any:
        """Publish, and wait for the confirm.

        Raises `TimeoutError` when none comes, after closing the socket: a confirm that came later would
        be taken for that of the next message. Raises `Unroutable` where no queue would get a task, or what
        is mandatory, which RabbitMQ confirms too; queues are declared again then, for one must have been
        deleted.
        """
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the channel was closed with its connection")
        seconds = kwargs.get("confirm_timeout") or connection.confirm_timeout
        mandatory = kwargs.pop("mandatory", False) or _is_task(message)
        if not mandatory and kwargs.get("exchange"):
            seconds = min(seconds, _BROADCAST_TIMEOUT)
        options = {**kwargs, "mandatory": mandatory, "confirm_timeout": seconds}
        self._returned = False
        try:
            confirmed = super().basic_publish_confirm(message, **options)
        except TimeoutError:
            connection.collect()
            raise TimeoutError(f"RabbitMQ has not confirmed the message within {seconds:g} s") from None
        if self._returned and mandatory:
            connection.client.declared_entities.clear()
            raise Unroutable(exchange=options["exchange"], routing_key=options["routing_key"])
        return confirmed

    def _on_basic_return(self, *about: Any) -> None:
        # Without a handler py-amqp raises, and leaves the confirm that follows to the next message.
        self._returned = True
        if self.events.get("basic_return"):
            super()._on_basic_return(*about)


def _is_task(message: Any) -> bool:
    """Return whether a message must not be lost: broadcasts, events and results may find nobody there."""
    headers = message.properties.get("application_headers") or {}
    return "task" in headers and message.properties.get("delivery_mode") == _PERSISTENT


class Connection(Beating, pyamqp.Connection):  # type: ignore[misc]
    """A connection that knows how long a confirm may take, and whether its prefetch changes."""

    Channel = Channel

    def __init__(
        self,
        *args: Any,
        confirm_timeout: float = DEFAULT_TIMEOUT,
        adjustable_prefetch: bool = False,
        delivery_limit: int = 0,
        dead_letter_seconds: float = KEPT_SECONDS,
        dead_letter_limit: int = KEPT,
        **kwargs: Any,
    ) -> None:
        self.confirm_timeout = confirm_timeout
        self.adjustable_prefetch = adjustable_prefetch
        #: Deliveries after which a task becomes a dead letter; 0 for no such limit.
        self.delivery_limit = delivery_limit
        #: For how many seconds a dead letter is kept in a new queue of them, and how many are.
        self.retention = dead_letter_seconds, dead_letter_limit
        #: The queues whose dead letters have a place, as far as they were declared here.
        self.with_dead_letters: set[str] = set()
        self.aside: Aside | None = None
        super().__init__(*args, frame_handler=rabbitmq_unreadable.frames, **kwargs)


def _dead_letters(
    transport: Any, connection: KombuConnection, queues: list[str]
) -> rabbitmq_dead_letters.DeadLetters | None:
    """Return the dead letters of queues, none where this profile sets no message aside."""
    limit = connection.transport_options.get("delivery_limit")
    return rabbitmq_dead_letters.DeadLetters(connection, queues, limit) if limit else None


class Transport(pyamqp.Transport):  # type: ignore[misc]
    """Celery's messages over AMQP."""

    Connection = Connection
    dead_letters = _dead_letters
    channel_errors = (*pyamqp.Transport.channel_errors, Unroutable)
    recoverable_channel_errors = (*pyamqp.Transport.recoverable_channel_errors, Unroutable)


class SSLTransport(pyamqp.SSLTransport):  # type: ignore[misc]
    """Celery's messages over AMQP and TLS."""

    Connection = Connection
    dead_letters = _dead_letters
    channel_errors = Transport.channel_errors
    recoverable_channel_errors = Transport.recoverable_channel_errors
