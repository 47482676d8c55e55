"""Results in a SQLite file, as rows that expire by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.sqlite import embedded_path, sqlite_path
from broker_profiles.profile import Mode, ResultStore, Setting
from broker_profiles.results.common import FULL, bounded_wait, retried_operations
from broker_profiles.settings import Environment


def _embedded(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting(
        "result_backend",
        f"leased-sqlite:///{embedded_path(environment)}",
        "the same file as the messages",
    )
    yield from bounded_wait(environment)
    yield from retried_operations()


def _sqlite(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting(
        "result_backend",
        f"leased-sqlite:///{sqlite_path(environment, results=True)}",
        "one row a result, removed when it has expired",
        environment.address("sqlite", results=True).variable,
    )
    yield from bounded_wait(environment)
    yield from retried_operations()


EMBEDDED = ResultStore(
    name="embedded", title="the embedded profile's file", settings=_embedded, guarantees=FULL
)

SQLITE = ResultStore(
    name="sqlite",
    title="SQLite file",
    settings=_sqlite,
    guarantees=FULL,
    address="sqlite",
)
