"""Results expire on every store without beat: gone in time, and removed by who stores others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import GroupResult

from broker_profiles.results import removal
from tests.acceptance.running import client, close_backend
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf
from tests.waiting import until

# Celery's Redis backend says `setex`.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

PROFILES = ["embedded", "redis", "postgresql", "mysql", "mongodb"]

#: Those that remove rows themselves; Redis does that for us.
REMOVING = ["postgresql", "mysql", "mongodb"]

#: Seconds that results are kept: enough for a slow machine to read one before it is gone.
KEPT = 5


@pytest.fixture
def app(profile: str, server: ServerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A client that keeps results for some seconds, and removes some at each chance that it has."""
    monkeypatch.setattr(removal, "_EVERY", 0.0)
    monkeypatch.setattr(removal, "_GO_ON", 0.0)
    environ = environment(profile, server, tmp_path)
    with client({**environ, "BROKER_PROFILE_RESULT_EXPIRES_SECONDS": str(KEPT)}) as made, close_backend(made):
        yield made


def state(app: Celery, id_: str) -> str:
    meta: dict[str, Any] = app.backend.get_task_meta(id_, cache=False)
    return str(meta["status"])


def names(tmp_path: Path, *ends: str) -> list[str]:
    """Return ids that no other test has."""
    return [f"{tmp_path.name}-{tmp_path.parent.name}-{end}" for end in ends]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_state_expires(app: Celery, tmp_path: Path) -> None:
    finished, started = names(tmp_path, "finished", "started")
    app.backend.store_result(finished, 5, "SUCCESS")
    app.backend.store_result(started, {"pid": 1}, "STARTED")
    assert (state(app, finished), state(app, started)) == ("SUCCESS", "STARTED")
    until(lambda: state(app, finished) == "PENDING", KEPT + 5, "a result expires")
    until(lambda: state(app, started) == "PENDING", KEPT + 5, "what a lost task has stored expires")
    assert not app.backend.task_result_exists(finished)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_task_that_runs_again_after_its_result_has_expired_stores_another(
    app: Celery, tmp_path: Path
) -> None:
    (id_,) = names(tmp_path, "again")
    app.backend.store_result(id_, 1, "SUCCESS")
    until(lambda: state(app, id_) == "PENDING", KEPT + 5, "a result expires")
    app.backend.store_result(id_, 2, "SUCCESS")
    assert app.backend.get_task_meta(id_, cache=False)["result"] == 2


@pytest.mark.parametrize("profile", PROFILES)
def test_a_saved_group_expires_and_is_saved_again(app: Celery, tmp_path: Path) -> None:
    (id_,) = names(tmp_path, "group")
    group = GroupResult(id_, [app.AsyncResult("a"), app.AsyncResult("b")], app=app)

    def saved() -> Any:
        return app.backend.restore_group(id_, cache=False)

    group.save(backend=app.backend)
    group.save(backend=app.backend)
    assert saved() == group
    until(lambda: saved() is None, KEPT + 5, "a group expires")
    group.save(backend=app.backend)
    assert saved() == group


@pytest.mark.parametrize("profile", REMOVING)
def test_what_has_expired_is_removed_by_who_stores_others(app: Celery, tmp_path: Path) -> None:
    id_, other = names(tmp_path, "old", "new")
    app.backend.store_result(id_, 1, "SUCCESS")
    assert lies_there(app, id_)

    def removed() -> bool:
        app.backend.store_result(other, 2, "SUCCESS")
        return not lies_there(app, id_)

    until(removed, KEPT + 10, "an expired result is removed")


@pytest.mark.parametrize("profile", REMOVING)
def test_results_are_kept_for_ever_where_the_application_says_so(
    profile: str, server: ServerOf, tmp_path: Path
) -> None:
    environ = environment(profile, server, tmp_path)
    (id_,) = names(tmp_path, "ever")
    with client(environ) as app, close_backend(app):
        app.conf.result_expires = 0
        app.backend.store_result(id_, 1, "SUCCESS")
        app.backend.cleanup()
        assert state(app, id_) == "SUCCESS"
        assert lies_there(app, id_)


@pytest.mark.parametrize("kept", [0, 60])
@pytest.mark.parametrize("profile", ["postgresql", "mysql"])
def test_a_success_stays_though_another_run_of_the_task_stores_at_the_same_moment(
    profile: str, kept: int, server: ServerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id_,) = names(tmp_path, "twice")
    environ = environment(profile, server, tmp_path)
    with client(environ) as one, client(environ) as other:
        for app in (one, other):
            app.conf.result_expires = kept
        query = other.backend._query_task

        def overtaken(session: Any, task_id: str, **options: Any) -> Any:
            monkeypatch.undo()
            found = query(session, task_id, **options)
            session.rollback()
            one.backend.store_result(id_, 5, "SUCCESS")
            return found

        monkeypatch.setattr(other.backend, "_query_task", overtaken)
        other.backend.store_result(id_, None, "RETRY")
        assert state(one, id_) == "SUCCESS"


def test_dates_are_those_of_utc_wherever_the_server_is(server: ServerOf, tmp_path: Path) -> None:
    environ = environment("postgresql", server, tmp_path)
    url = environ["DATABASE_URL"]
    elsewhere = "options=-c%20timezone%3DAsia/Tokyo"
    environ["DATABASE_URL"] = f"{url}{'&' if '?' in url else '?'}{elsewhere}"
    (id_,) = names(tmp_path, "tokyo")
    with client({**environ, "BROKER_PROFILE_RESULT_EXPIRES_SECONDS": "60"}) as app:
        app.backend.store_result(id_, 1, "SUCCESS")
        assert state(app, id_) == "SUCCESS"
        done = app.backend.get_task_meta(id_, cache=False)["date_done"]
        assert abs((app.now().replace(tzinfo=None) - done).total_seconds()) < 1800


def lies_there(app: Celery, id_: str) -> bool:
    """Return whether there is a row or a document, expired or not."""
    backend = app.backend
    if hasattr(backend, "collection"):
        return backend.collection.count_documents({"_id": id_}) > 0
    session = super(type(backend), backend).ResultSession()
    with session:
        found = session.query(backend.task_cls).filter(backend.task_cls.task_id == id_)
        return found.count() > 0
