"""A queue with dead letters on RabbitMQ."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from kombu import Connection

from broker_profiles.transports.rabbitmq_dead import dead_letter_queue
from tests.acceptance.dead_letters import connect, declare
from tests.conftest import ServerOf


@pytest.fixture
def connection(server: ServerOf) -> Iterator[Connection]:
    with connect(server("rabbitmq").url) as connected:
        yield connected


@pytest.fixture
def queue(connection: Connection) -> Iterator[str]:
    name = f"letters-{uuid.uuid4().hex[:8]}"
    declare(connection.default_channel, name)
    yield name
    with connection.channel() as cleaning:
        cleaning.queue_delete(name)
        cleaning.queue_delete(dead_letter_queue(name))
