"""RabbitMQ by py-amqp, with messages decoded and encoded by the C client."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.amqp import GUARANTEES, NOTES, amqp_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    yield from amqp_settings(
        environment, mode, "librabbitmq", "rabbitmq-c decodes and encodes messages; else as with py-amqp"
    )


BROKER = Broker(
    name="librabbitmq",
    title="RabbitMQ 3.10 to 4, by the C client",
    default_results="rpc",
    settings=_settings,
    guarantees=GUARANTEES,
    # The second is built with this package where there is a C compiler, or comes with its wheel.
    modules=("amqp", "broker_profiles.transports._rabbitmq_c", "_librabbitmq"),
    extra="librabbitmq",
    redelivery_timeout="broker_heartbeat",
    notes={mode: f"as rabbitmq: {note}" for mode, note in NOTES.items()},
    system="rabbitmq",
    address="rabbitmq",
)
