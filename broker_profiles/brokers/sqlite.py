"""SQLite as a broker: `embedded`, which needs no server and no address, and `sqlite`.

Both use the leased transport on one file that any number of processes of one machine share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from broker_profiles.brokers.leased import DURABLE, LEASE_VARIABLE, leased_settings
from broker_profiles.profile import Broker, Mode, Setting
from broker_profiles.settings import Environment, sqlite_file

_NOTES = {
    Mode.DURABLE: "survives the death of any process; a power cut too with "
    "BROKER_PROFILE_SQLITE_SYNCHRONOUS=FULL"
}


def embedded_path(environment: Environment) -> Path:
    """Return the absolute path of the embedded profile's file."""
    return Path(environment.text("embedded_path")).expanduser().absolute()


def sqlite_path(environment: Environment, *, results: bool = False) -> Path:
    """Return the absolute path that `DATABASE_URL` names: `sqlite:///relative`, `sqlite:////absolute`."""
    url = environment.address("sqlite", results=results).url
    return Path(sqlite_file(url)).expanduser().absolute()


def _settings_at(path: Path, environment: Environment, mode: Mode, where: str) -> Iterator[Setting]:
    url = Setting("broker_url", f"sqlite:///{path}", "the file that holds the messages", where)
    yield from leased_settings(
        environment,
        mode,
        url,
        "broker_profiles.transports.sqlite:Transport",
        {"synchronous": environment.text("sqlite_synchronous")},
    )


def _embedded(environment: Environment, mode: Mode) -> Iterator[Setting]:
    source = environment.source("embedded_path")
    yield from _settings_at(embedded_path(environment), environment, mode, source)


def _sqlite(environment: Environment, mode: Mode) -> Iterator[Setting]:
    source = environment.address("sqlite").variable
    yield from _settings_at(sqlite_path(environment), environment, mode, source)


EMBEDDED = Broker(
    name="embedded",
    title="SQLite file, no server",
    default_results="embedded",
    settings=_embedded,
    guarantees={Mode.DURABLE: DURABLE},
    redelivery_timeout=LEASE_VARIABLE,
    notes=_NOTES,
)

SQLITE = Broker(
    name="sqlite",
    title="SQLite file named by DATABASE_URL",
    default_results="sqlite",
    settings=_sqlite,
    guarantees={Mode.DURABLE: DURABLE},
    redelivery_timeout=LEASE_VARIABLE,
    notes=_NOTES,
    address="sqlite",
)
