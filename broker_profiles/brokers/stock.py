"""The baselines: Celery exactly as it comes, there to be compared with.

Nothing is set but the address; what they keep is what the comparison measures, and is not promised.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.amqp import pyamqp_address
from broker_profiles.profile import CONTRACT, Broker, Guarantees, Mode, Setting, SettingsFunction
from broker_profiles.settings import Environment

_UNPROMISED = dict.fromkeys(CONTRACT, "a baseline: whatever Celery's defaults do")
_NOTHING_PROMISED = {Mode.STOCK: Guarantees(kept=frozenset(), not_offered=_UNPROMISED)}
_NOTES = {Mode.STOCK: "a baseline: Celery's own defaults"}


def _at(kind: str, prefix: str = "") -> SettingsFunction:
    def settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
        address = environment.address(kind)
        yield Setting("broker_url", prefix + address.url, "where the broker is", address.variable)

    return settings


def _rabbitmq(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield pyamqp_address(environment)


def _sqlalchemy(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    address = environment.any_database()
    yield Setting("broker_url", f"sqla+{address.url}", "where the database is", address.variable)


RABBITMQ = Broker(
    name="stock-rabbitmq",
    title="Celery's defaults on RabbitMQ",
    default_results="stock-rpc",
    settings=_rabbitmq,
    guarantees=_NOTHING_PROMISED,
    modules=("amqp",),
    redelivery_timeout="broker_heartbeat",
    notes=_NOTES,
    system="rabbitmq",
    address="rabbitmq",
)

REDIS = Broker(
    name="stock-redis",
    title="Celery's defaults on Redis",
    default_results="stock-redis",
    settings=_at("redis"),
    guarantees=_NOTHING_PROMISED,
    modules=("redis",),
    extra="redis",
    # The last two are how often workers look for what has timed out: every 100 s.
    redelivery_timeout="visibility_timeout unacked_restore_interval unacked_restore_throttle",
    notes=_NOTES,
    system="redis",
    address="redis",
)

SQLALCHEMY = Broker(
    name="stock-sqlalchemy",
    title="Celery's defaults on a SQL database",
    default_results="stock-sqlalchemy",
    settings=_sqlalchemy,
    guarantees=_NOTHING_PROMISED,
    modules=("sqlalchemy",),
    extra="postgresql",
    notes=_NOTES,
    address="database",
)

MONGODB = Broker(
    name="stock-mongodb",
    title="Celery's defaults on MongoDB",
    default_results="stock-mongodb",
    settings=_at("mongodb"),
    guarantees=_NOTHING_PROMISED,
    modules=("pymongo",),
    extra="mongodb",
    notes=_NOTES,
    system="mongodb",
    address="mongodb",
)
