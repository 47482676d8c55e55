"""RabbitMQ's quorum queues: the prefetch of a consumer that runs can be changed, with no message lost."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue

from tests.conftest import ServerOf

COUNT = 10


class Receiver:
    """A consumer with an open connection, and what it holds without having acknowledged it."""

    def __init__(self, connection: Connection, queue: Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.seen: list[int] = []
        self.held: list[Any] = []
        # As Celery's worker does: the prefetch first.
        connection.default_channel.basic_qos(0, 1, False)
        self.consumer = Consumer(connection, [queue], on_message=self._receive)
        self.consumer.consume()

    def send(self, count: int) -> None:
        """Send so many messages, numbered from 0."""
        producer = self.connection.Producer()
        for number in range(count):
            producer.publish(number, routing_key=self.queue.name, declare=[self.queue])

    def _receive(self, message: Any) -> None:
        self.seen.append(message.decode())
        self.held.append(message)

    def wait(self) -> int:
        """Take in what comes and return how many messages are held."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.connection.drain_events(timeout=0.3)
        return len(self.held)

    def acknowledge(self) -> None:
        """Acknowledge the first message that is held."""
        self.held.pop(0).ack()


@pytest.fixture(params=["rabbitmq", "librabbitmq"])
def receiver(request: pytest.FixtureRequest, server: ServerOf) -> Iterator[Receiver]:
    transport = f"broker_profiles.transports.{request.param}:Transport"
    url = server("rabbitmq").url
    with Connection(url, transport=transport, transport_options={"adjustable_prefetch": True}) as connection:
        queue = Queue(f"prefetch-{uuid.uuid4().hex[:8]}", queue_arguments={"x-queue-type": "quorum"})
        receiver = Receiver(connection, queue)
        receiver.send(COUNT)
        yield receiver
        queue(connection.default_channel).delete()


def test_a_prefetch_that_grows_counts_what_is_held(receiver: Receiver) -> None:
    assert receiver.wait() == 1
    receiver.consumer.qos(prefetch_count=3)
    assert receiver.wait() == 3
    receiver.acknowledge()
    assert receiver.wait() == 3
    assert receiver.seen == [0, 1, 2, 3]


def test_a_prefetch_that_shrinks_lets_the_rest_wait(receiver: Receiver) -> None:
    receiver.consumer.qos(prefetch_count=3)
    assert receiver.wait() == 3
    receiver.consumer.qos(prefetch_count=1)
    assert receiver.wait() == 3
    receiver.acknowledge()
    receiver.acknowledge()
    # The first one was held by the part that stays, which has another now.
    assert receiver.wait() == 2
    receiver.acknowledge()
    assert receiver.wait() == 1
    receiver.acknowledge()
    assert receiver.wait() == 1


def test_every_message_comes_once_however_often_the_prefetch_changes(receiver: Receiver) -> None:
    while len(receiver.seen) < COUNT:
        receiver.consumer.qos(prefetch_count=len(receiver.seen) % 3 + 1)
        receiver.wait()
        receiver.acknowledge()
    assert receiver.seen == list(range(COUNT))


def test_a_cancelled_consumer_stays_cancelled(receiver: Receiver) -> None:
    receiver.consumer.qos(prefetch_count=3)
    assert receiver.wait() == 3
    receiver.consumer.cancel()
    receiver.consumer.qos(prefetch_count=5)
    while receiver.held:
        receiver.acknowledge()
    assert receiver.wait() == 0
