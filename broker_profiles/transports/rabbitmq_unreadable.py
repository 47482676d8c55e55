"""Messages that cannot be read, on RabbitMQ: each becomes a dead letter with its reason; the worker goes on.

RabbitMQ moves what is rejected to the dead letters, and keeps no word of why. So a message that there is
something to say of is published there with the reason, and acknowledged when that is confirmed: it may be
there twice then, and is never lost. Nobody waits for the confirm, for a worker's loop would take further
messages meanwhile, each within the one before it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from amqp import basic_message, spec
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp

from broker_profiles.transports import failing, rabbitmq_dead, validity
from broker_profiles.transports.reading import Readable
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, REJECTED, UNREADABLE

logger = logging.getLogger(__name__)

#: The header that stands for all of a message's where they cannot be decoded, and says why.
HEADERS_LOST = "x-headers-lost"

#: The bytes of a frame before the properties: its class, and how long the body is.
_BEFORE_PROPERTIES = 12

#: Seconds for which a channel that is closed waits for confirms.
_CONFIRMED = 1.0

_ERRORS_OF_THE_BROKER = (*pyamqp.Transport.connection_errors, *pyamqp.Transport.channel_errors)


def frames(connection: Any, callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], bool]:
    """Return what takes the frames of a connection, by py-amqp, which fails on tables nested too deep.

    Their message has `HEADERS_LOST` instead of its own properties, and is set aside as unreadable.
    """
    dispatched = 0

    def dispatch(*method: Any) -> None:
        nonlocal dispatched
        dispatched += 1
        callback(*method)

    handle = frame_handler(connection, dispatch)

    def take(frame: tuple[int, int, bytes]) -> bool:
        before = dispatched
        try:
            return bool(handle(frame))
        except RecursionError as error:
            if dispatched != before:
                raise  # of whom the message was given to
            said = basic_message.Message(application_headers={HEADERS_LOST: validity.text_of(error)})
            kind, channel, header = frame
            return bool(handle((kind, channel, header[:_BEFORE_PROPERTIES] + said._serialize_properties())))

    return take


class Message(Readable, pyamqp.Message):  # type: ignore[misc]
    """A delivered message; one that cannot be decoded is set aside when it is acknowledged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at_hand = getattr(self.channel, "_at_hand", None)
        if self.errors:
            # Its consumer hears of it, and acknowledges it as it does any that it cannot decode.
            self.channel.note_unreadable(self.delivery_tag, self.errors[0][1])


@dataclass(slots=True)
class _AtHand:
    """The message that its consumer is being given."""

    queue: str
    raw: Any
    #: Why it cannot be read, as far as its consumer has found out.
    problem: str = ""
    #: Whether it has been acknowledged, rejected or set aside.
    settled: bool = False
    #: How its task has failed; this is known when it is at hand no more.
    failure: str = ""

    @property
    def headers(self) -> dict[str, Any]:
        return self.raw.properties.get("application_headers") or {}


class Reading:
    """What a py-amqp channel needs to set aside what its consumers cannot read."""

    connection: Any
    _at_hand: _AtHand | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The messages whose tasks have failed, by their delivery tags, until they are settled.
        self._failed: dict[int, _AtHand] = {}

    def reading(self, queue: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback for the messages of a queue that has dead letters; no message ends it."""
        if self.connection.aside is None:
            # Now, for to open a channel when a message is at hand is to be given the next one within it.
            self.connection.aside = Aside(self.connection)

        def deliver(raw: Any) -> None:
            before, self._at_hand = self._at_hand, _AtHand(queue, raw)
            try:
                self._deliver(self._at_hand, callback)
            finally:
                self._at_hand = before

        return deliver

    def _deliver(self, at_hand: _AtHand, callback: Callable[[Any], None]) -> None:
        problem = at_hand.headers.get(HEADERS_LOST) or validity.problem_with(at_hand.headers)
        if problem:
            self._set_aside(at_hand, UNREADABLE, problem)
            return
        try:
            callback(at_hand.raw)
        except _ERRORS_OF_THE_BROKER:
            raise
        except Exception as error:
            if at_hand.settled or "task" not in at_hand.headers:
                raise
            # Celery could not even read what the message says of its task.
            logger.exception("A message cannot be read and is set aside")
            self._set_aside(at_hand, UNREADABLE, validity.text_of(error))

    def note_unreadable(self, delivery_tag: int, error: Exception) -> None:
        """Remember why a message could not be decoded."""
        at_hand = self._find(delivery_tag)
        if at_hand is not None:
            at_hand.problem = validity.text_of(error)

    def note_failure(self, message: Message, failure: str) -> None:
        """Remember how the task of a message has failed, for its dead letter should it become one."""
        if message.at_hand is not None:
            message.at_hand.failure = failure
            self._failed[message.delivery_tag] = message.at_hand

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **options: Any) -> None:
        """Acknowledge a message, or set it aside where it could not be decoded."""
        self._failed.pop(delivery_tag, None)
        at_hand = self._find(delivery_tag)
        if at_hand is not None and at_hand.problem:
            self._set_aside(at_hand, UNREADABLE, at_hand.problem)
            return
        self._settled(at_hand)
        super().basic_ack(delivery_tag, multiple, **options)  # type: ignore[misc]

    def basic_reject(self, delivery_tag: int, requeue: bool = False, **options: Any) -> None:
        """Put a message back, or make a dead letter of it."""
        failed = self._failed.pop(delivery_tag, None)
        if failed is not None and self.connection is not None:
            # RabbitMQ would move it, now or at its last return, and knows nothing of the failure.
            if not requeue:
                self._set_aside(failed, REJECTED, failed.failure)
                return
            deliveries = rabbitmq_dead.deliveries(failed.raw)
            if deliveries >= self.connection.delivery_limit:
                self._set_aside(failed, DELIVERIES_EXHAUSTED, failing.exhausted(deliveries, failed.failure))
                return
        at_hand = self._find(delivery_tag)
        if at_hand is not None and not requeue:
            # Celery rejects what it has no task for, or cannot use, while it handles the error that says so.
            error = sys.exception()
            if at_hand.problem:
                self._set_aside(at_hand, UNREADABLE, at_hand.problem)
                return
            if error is not None:
                self._set_aside(at_hand, *failing.why_rejected(error))
                return
        self._settled(at_hand)
        super().basic_reject(delivery_tag, requeue, **options)  # type: ignore[misc]

    def close(self, *args: Any, **options: Any) -> None:
        """End the channel, once the dead letters on their way are confirmed, or a moment later."""
        if self.connection is not None and self.connection.aside is not None:
            self.connection.aside.finish()
        super().close(*args, **options)  # type: ignore[misc]

    def _find(self, delivery_tag: int) -> _AtHand | None:
        """Return the message at hand, if it is this one and not settled; any thread may settle others."""
        at_hand = self._at_hand
        if at_hand is None or at_hand.settled or at_hand.raw.delivery_tag != delivery_tag:
            return None
        return at_hand

    def _settled(self, at_hand: _AtHand | None) -> None:
        if at_hand is not None:
            at_hand.settled = True

    def _set_aside(self, at_hand: _AtHand, reason: str, detail: str) -> None:
        at_hand.settled = True
        self.connection.aside.put(_Letter(self, at_hand.queue, at_hand.raw, reason, detail))


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message on its way to the dead letters of its queue."""

    channel: Any
    queue: str
    raw: Any
    reason: str
    detail: str

    def acknowledge(self) -> None:
        """Remove the message from its queue: it is a dead letter."""
        if self.channel.is_open:
            self.channel.basic_ack(self.raw.delivery_tag)

    def reject(self) -> None:
        """Leave it to RabbitMQ to move the message, which says nothing of why."""
        if self.channel.is_open:
            self.channel.basic_reject(self.raw.delivery_tag, requeue=False)


class Aside:
    """Publishes dead letters with their reasons, on a channel of its own."""

    def __init__(self, connection: Any) -> None:
        self._channel = connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._confirmed)
        self._channel.events["basic_nack"].add(self._refused)
        self._channel.events["basic_return"].add(self._returned)
        #: Held by the thread that publishes: RabbitMQ numbers what it gets in the order of its coming.
        self._lock = threading.Lock()
        #: By the number of the publication, which is how RabbitMQ confirms it.
        self._unconfirmed: dict[int, _Letter] = {}
        self._published = 0
        #: Whether it is not known any more how RabbitMQ numbers what comes next.
        self._lost_count = False

    def put(self, letter: _Letter) -> None:
        """Publish a letter, from any thread; its message is acknowledged when that is confirmed."""
        try:
            message = rabbitmq_dead.with_reason(letter.raw, letter.reason, letter.detail)
            with self._lock:
                written = self._publish(letter, message)
        except _ERRORS_OF_THE_BROKER:
            raise
        except Exception:
            logger.exception("A message is set aside without its reason: it cannot be written again")
            written = False
        if not written:
            letter.reject()

    def finish(self) -> None:
        """Wait for the confirms, for a moment: what is not confirmed is set aside once more by another."""
        connection, deadline = self._channel.connection, time.monotonic() + _CONFIRMED
        with contextlib.suppress(*_ERRORS_OF_THE_BROKER):
            while connection and self._unconfirmed and (left := deadline - time.monotonic()) > 0:
                connection.drain_events(timeout=left)

    def _publish(self, letter: _Letter, message: Any) -> bool:
        """Write a letter; return whether its confirm will be known for its own."""
        if self._lost_count:
            return False
        queue = rabbitmq_dead.dead_letter_queue(letter.queue)
        number = self._published = self._published + 1
        # Before it is written, for the thread that reads may have the confirm before this one goes on.
        self._unconfirmed[number] = letter
        try:
            # Not by py-amqp's `basic_publish`, which reads too: one thread does, and no message comes within.
            self._channel.send_method(spec.Basic.Publish, "Bssbb", (0, "", queue, True, False), message)
        except _ERRORS_OF_THE_BROKER:
            self._lost_count = True
            self._unconfirmed.pop(number, None)
            raise
        except Exception:
            # It could not be put into bytes: nothing was written.
            self._published -= 1
            self._unconfirmed.pop(number, None)
            raise
        return True

    def _confirmed(self, number: int, multiple: bool) -> None:
        for letter in self._take(number, multiple):
            letter.acknowledge()

    def _refused(self, number: int, multiple: bool) -> None:
        for letter in self._take(number, multiple):
            letter.reject()

    def _returned(self, *about: Any) -> None:
        # There is no such queue any more, and RabbitMQ will confirm what it has returned. It does not say
        # which it was; at worst one of the others is there twice.
        for letter in self._take(self._published, multiple=True):
            letter.reject()

    def _take(self, number: int, multiple: bool) -> Iterable[_Letter]:
        # The list first, whole: other threads add to what is unconfirmed.
        numbers = [each for each in list(self._unconfirmed) if each <= number] if multiple else [number]
        taken = [self._unconfirmed.pop(each, None) for each in numbers]
        return [letter for letter in taken if letter is not None]
