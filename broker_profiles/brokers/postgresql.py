"""PostgreSQL over the leased transport."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.leased import DURABLE, LEASE_VARIABLE, NOTES, leased_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment
from broker_profiles.tls import verified


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    address = environment.address("postgresql")
    yield from leased_settings(
        environment,
        mode,
        Setting("broker_url", verified(address.url, environment), "where the database is", address.variable),
        "broker_profiles.transports.postgresql:Transport",
    )


BROKER = Broker(
    name="postgresql",
    title="PostgreSQL >= 13",
    default_results="postgresql",
    settings=_settings,
    guarantees={Mode.DURABLE: DURABLE},
    modules=("sqlalchemy", "psycopg"),
    extra="postgresql",
    redelivery_timeout=LEASE_VARIABLE,
    notes={Mode.DURABLE: NOTES[Mode.DURABLE]},
    system="postgresql",
    address="postgresql",
)
