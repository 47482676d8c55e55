"""Our result backends in place of Celery's, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.backends.database import DatabaseBackend as CelerysDatabaseBackend
from celery.backends.mongodb import MongoBackend as CelerysMongoBackend
from celery.backends.redis import RedisBackend as CelerysRedisBackend
from pymongo.errors import AutoReconnect, OperationFailure

from broker_profiles import configure
from broker_profiles.results.kept import decoded
from broker_profiles.results.mongodb_backend import Expiring, MongoBackend
from broker_profiles.results.redis_backend import RedisBackend
from broker_profiles.results.sql_backend import SQLBackend


def application(profile: str) -> Celery:
    return configure(Celery("t", set_as_current=False), profile, environ={})


@pytest.mark.parametrize(
    ("profile", "backend"),
    [
        ("redis", RedisBackend),
        ("embedded+redis", RedisBackend),
        ("mongodb", MongoBackend),
        ("postgresql", SQLBackend),
        ("redis+mysql", SQLBackend),
        ("stock-redis", CelerysRedisBackend),
        ("stock-mongodb", CelerysMongoBackend),
        ("stock-sqlalchemy", CelerysDatabaseBackend),
    ],
)
def test_a_profile_brings_its_backend_and_a_baseline_has_celerys(profile: str, backend: type) -> None:
    assert type(application(profile).backend) is backend


def test_an_application_may_have_a_backend_of_its_own() -> None:
    app = Celery("t", set_as_current=False)
    app.loader.override_backends = {"redis": "celery.backends.redis:RedisBackend"}
    configure(app, "redis", environ={})
    assert type(app.backend) is CelerysRedisBackend


def test_sending_does_not_touch_redis() -> None:
    backend = application("redis").backend
    backend.on_task_call(None, "id")  # nothing listens
    assert backend.result_consumer._pubsub is None


def test_a_result_is_stored_again_where_mongodb_is_away_and_not_where_it_refuses() -> None:
    backend = application("mongodb").backend
    assert backend.exception_safe_to_retry(AutoReconnect())
    assert not backend.exception_safe_to_retry(OperationFailure("no"))


def test_a_result_is_in_mongodbs_journal_when_it_is_stored() -> None:
    assert application("mongodb").backend.options["journal"] is True


def test_a_sender_does_not_wait_for_a_database_that_keeps_the_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    created: list[Any] = []
    monkeypatch.setattr("celery.backends.database.DatabaseBackend._create_tables", created.append)
    application("redis+postgresql").backend.on_task_call(None, "id")
    assert created == []


class Collection:
    """Notes what is asked of it, as MongoDB's driver is asked."""

    def __init__(self) -> None:
        self.upserts: list[tuple[Any, Any]] = []

    def create_index(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def update_one(self, query: Any, change: Any, *, upsert: bool) -> None:
        assert upsert
        self.upserts.append((query, change))


@pytest.mark.parametrize("state", ["SUCCESS", "STARTED"])
def test_what_an_upsert_looks_for_is_an_id_for_mongodb_takes_no_expression_there(state: str) -> None:
    backend, collection = application("mongodb").backend, Collection()
    backend.collection = Expiring(collection, 60)  # type: ignore[arg-type]
    backend.store_result("one", 1, state)
    ((query, (change,)),) = collection.upserts
    assert query == {"_id": "one"}
    is_kept, as_it_was, new = change["$replaceWith"]["$cond"]
    assert "$status" in repr(is_kept)
    assert as_it_was == "$$ROOT"
    assert f"'status': '{state}'" in repr(new)


@pytest.mark.parametrize("profile", ["embedded", "redis"])
def test_an_entry_that_cannot_be_decoded_says_so(profile: str) -> None:
    found = decoded(application(profile).backend, "key", b"\x80\x04N.")
    assert found == {"task_id": "key", "status": "CANNOT DECODE"}
