"""Results in MongoDB."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Mode, ResultStore, Setting
from broker_profiles.results.chords import bounded_chords
from broker_profiles.results.common import FULL, bounded_wait, retried_operations
from broker_profiles.settings import Environment


def _settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    address = environment.address("mongodb", results=True)
    yield Setting(
        "result_backend", address.url, "one document a result, removed when it has expired", address.variable
    )
    milliseconds = round(1000 * environment.number("result_timeout_seconds"))
    names = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")
    yield Setting(
        "mongodb_backend_settings",
        {"options": {**dict.fromkeys(names, milliseconds), "journal": True}},
        "a server that does not answer is an error (pymongo: 30 s); a stored result survives its death",
        environment.source("result_timeout_seconds"),
    )
    yield from bounded_wait(environment)
    yield from bounded_chords(environment)
    yield from retried_operations()


STORE = ResultStore(
    name="mongodb",
    title="MongoDB >= 5",
    settings=_settings,
    guarantees=FULL,
    modules=("pymongo",),
    extra="mongodb",
    system="mongodb",
    address="mongodb",
    backends={"mongodb": "broker_profiles.results.mongodb_backend:MongoBackend"},
)
