"""MongoDB over the leased transport."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.leased import DURABLE, LEASE_VARIABLE, NOTES, leased_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    address = environment.address("mongodb")
    yield from leased_settings(
        environment,
        mode,
        Setting("broker_url", address.url, "where MongoDB is", address.variable),
        "broker_profiles.transports.mongodb:Transport",
    )


BROKER = Broker(
    name="mongodb",
    title="MongoDB >= 5",
    default_results="mongodb",
    settings=_settings,
    guarantees={Mode.DURABLE: DURABLE},
    modules=("pymongo",),
    extra="mongodb",
    redelivery_timeout=LEASE_VARIABLE,
    notes={Mode.DURABLE: NOTES[Mode.DURABLE]},
    system="mongodb",
    address="mongodb",
)
