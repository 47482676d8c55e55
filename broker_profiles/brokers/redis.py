"""Redis (or Valkey) over the leased transport."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.leased import DURABLE, FAST, LEASE_VARIABLE, NOTES, leased_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    address = environment.address("redis")
    yield from leased_settings(
        environment,
        mode,
        Setting("broker_url", address.url, "where Redis is", address.variable),
        "broker_profiles.transports.redis:Transport",
    )


BROKER = Broker(
    name="redis",
    title="Redis >= 6.2 or Valkey",
    default_results="redis",
    settings=_settings,
    guarantees={Mode.DURABLE: DURABLE, Mode.FAST: FAST},
    modules=("redis",),
    extra="redis",
    redelivery_timeout=LEASE_VARIABLE,
    notes={**NOTES, Mode.DURABLE: NOTES[Mode.DURABLE] + "; the server needs appendonly yes"},
    system="redis",
    address="redis",
)
