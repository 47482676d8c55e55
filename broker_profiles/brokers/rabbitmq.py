"""RabbitMQ by py-amqp."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.amqp import GUARANTEES, NOTES, amqp_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    yield from amqp_settings(
        environment, mode, "rabbitmq", "py-amqp, with an end to the wait for a confirm (Celery: none)"
    )


BROKER = Broker(
    name="rabbitmq",
    title="RabbitMQ 3.10 to 4, AMQP 0-9-1",
    default_results="rpc",
    settings=_settings,
    guarantees=GUARANTEES,
    modules=("amqp",),
    redelivery_timeout="broker_heartbeat",
    notes=NOTES,
    system="rabbitmq",
    address="rabbitmq",
)
