"""Results in MongoDB."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Guarantees, Mode, ResultStore, Setting
from broker_profiles.results.common import BEAT_EXPIRES, retried_operations
from broker_profiles.settings import Environment


def _settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    address = environment.address("mongodb", results=True)
    yield Setting("result_backend", address.url, "one document a result", address.variable)
    milliseconds = round(1000 * environment.number("result_timeout_seconds"))
    names = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")
    yield Setting(
        "mongodb_backend_settings",
        {"options": {**dict.fromkeys(names, milliseconds), "journal": True}},
        "a server that does not answer is an error (pymongo: 30 s); a stored result survives its death",
        environment.source("result_timeout_seconds"),
    )
    yield from retried_operations()


STORE = ResultStore(
    name="mongodb",
    title="MongoDB >= 5",
    settings=_settings,
    guarantees=Guarantees(
        kept=frozenset({"RES-1", "RES-2", "RES-4"}),
        not_offered={"RES-3": BEAT_EXPIRES},
    ),
    modules=("pymongo",),
    extra="mongodb",
    system="mongodb",
    address="mongodb",
    backends={"mongodb": "broker_profiles.results.mongodb_backend:MongoBackend"},
)
