"""The result stores of the baselines: an address and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import (
    RESULT_GUARANTEES,
    Guarantees,
    Mode,
    ResultStore,
    Setting,
    SettingsFunction,
)
from broker_profiles.results.rpc import ONLY_RABBITMQ
from broker_profiles.settings import Environment

_UNPROMISED = dict.fromkeys(RESULT_GUARANTEES, "a baseline: whatever Celery's defaults do")
_NOTHING_PROMISED = Guarantees(kept=frozenset(), not_offered=_UNPROMISED)


def _at(kind: str) -> SettingsFunction:
    def settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
        address = environment.address(kind, results=True)
        yield Setting("result_backend", address.url, "where the results go", address.variable)

    return settings


def _rpc(_environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting("result_backend", "rpc://", "messages back to the client")


def _sqlalchemy(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    address = environment.any_database()
    yield Setting("result_backend", f"db+{address.url}", "where the database is", address.variable)


REDIS = ResultStore(
    name="stock-redis",
    title="Celery's defaults on Redis",
    settings=_at("redis"),
    guarantees=_NOTHING_PROMISED,
    modules=("redis",),
    extra="redis",
    system="redis",
    address="redis",
)

RPC = ResultStore(
    name="stock-rpc",
    title="Celery's defaults over RabbitMQ",
    settings=_rpc,
    guarantees=Guarantees(kept=frozenset(), not_offered=_UNPROMISED, chords=False),
    only_over="rabbitmq",
    only_over_reason=ONLY_RABBITMQ,
)

SQLALCHEMY = ResultStore(
    name="stock-sqlalchemy",
    title="Celery's defaults in a SQL database",
    settings=_sqlalchemy,
    guarantees=_NOTHING_PROMISED,
    modules=("sqlalchemy",),
    extra="postgresql",
    address="database",
)

MONGODB = ResultStore(
    name="stock-mongodb",
    title="Celery's defaults in MongoDB",
    settings=_at("mongodb"),
    guarantees=_NOTHING_PROMISED,
    modules=("pymongo",),
    extra="mongodb",
    system="mongodb",
    address="mongodb",
)
