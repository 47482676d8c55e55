"""`broker-profiles results`: what real stores keep, by the command as users run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.acceptance.running import client, close_backend, worker
from tests.acceptance.tasks import tasks_of
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf
from tests.unit.test_cli import assert_one_line, data, run, run_apart

# Celery's Redis backend says `setex`.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

PROFILES = ["embedded", "redis", "postgresql", "mysql", "mongodb"]


class Store:
    """A result store with some results of this test, and the command for it."""

    def __init__(self, app: Celery, prefix: str) -> None:
        self.app = app
        self.ids = {f"{prefix}-{number}": "FAILURE" if number == 3 else "SUCCESS" for number in range(1, 6)}
        self.failed = f"{prefix}-3"
        self.prefix = prefix
        for number, (id_, state) in enumerate(self.ids.items(), 1):
            value = ValueError("wrong") if state == "FAILURE" else number
            trace = "Traceback: wrong" if state == "FAILURE" else None
            app.backend.store_result(id_, value, state, traceback=trace)

    def data(self, *arguments: str) -> Any:
        return data("results", *arguments)

    def ours(self, results: list[dict[str, Any]]) -> dict[str, str]:
        return {each["id"]: each["state"] for each in results if each["id"].startswith(self.prefix)}


@pytest.fixture(params=PROFILES)
def store(
    request: pytest.FixtureRequest, server: ServerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    environ = environment(request.param, server, tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with client(environ) as app, close_backend(app):
        yield Store(app, f"{tmp_path.parent.name}-{tmp_path.name}")


def test_every_result_is_listed_page_by_page(store: Store) -> None:
    found: list[dict[str, Any]] = []
    page = store.data("list", "--limit", "2")
    assert len(page["results"]) == 2
    found += page["results"]
    while page["next"]:
        page = store.data("list", "--limit", "1000", "--after", page["next"])
        found += page["results"]
    assert store.ours(found) == store.ids
    assert len({each["id"] for each in found}) == len(found)


def test_those_in_a_state_are_listed(store: Store) -> None:
    failed = store.data("list", "--state", "failure", "--limit", "1000")["results"]
    assert store.ours(failed) == {store.failed: "FAILURE"}
    assert {each["state"] for each in failed} == {"FAILURE"}
    assert_one_line(run("results", "list", "--task", "shop.pay"), 2, "result_extended = True")


def test_one_is_shown_as_its_async_result_has_it_and_as_it_lies_there(store: Store) -> None:
    shown = store.data("show", store.failed)
    assert shown["async_result"]["status"] == shown["stored"]["state"] == "FAILURE"
    assert shown["async_result"]["result"] == "ValueError('wrong')"
    assert '"exc_message": ["wrong"]' in shown["stored"]["value"]
    assert store.failed in shown["stored"]["key"] == shown["key"]
    assert shown["stored"]["traceback"] == "Traceback: wrong"
    assert 86_000 < shown["stored"]["ttl"] <= 86_400
    assert -60 < shown["stored"]["age"] < 300
    assert "Traceback: wrong" in run("results", "show", store.failed).stdout


def test_of_what_is_not_there_is_said_that_nothing_is(store: Store) -> None:
    shown = store.data("show", f"{store.prefix}-unknown")
    assert (shown["async_result"]["status"], shown["stored"]) == ("PENDING", None)
    assert "nothing" in run("results", "show", f"{store.prefix}-unknown").stdout


def test_those_that_are_waited_for(store: Store) -> None:
    done = [id_ for id_, state in store.ids.items() if state == "SUCCESS"]
    assert store.data("wait", *done)["states"] == dict.fromkeys(done, "SUCCESS")
    never = run("results", "wait", *store.ids, f"{store.prefix}-never", "--timeout", "0.1")
    assert never.exit_code == 1
    assert never.stderr == "Error: 2 of 6 tasks have not succeeded: 1 FAILURE, 1 PENDING.\n"


def test_what_has_expired_is_purged_and_all_only_when_asked_for(store: Store, server: ServerOf) -> None:
    system = store.app.broker_profile.results.system
    if system and not server(system).owned:
        pytest.skip("the server may hold results of others")
    store.data("purge")
    listed = store.data("list", "--limit", "1000")["results"]
    assert store.ours(listed) == store.ids
    refused = run("results", "purge", "--all")  # nobody answers its question
    assert refused.exit_code == 1
    assert store.ours(store.data("list", "--limit", "1000")["results"]) == store.ids
    assert store.data("purge", "--all", "--yes")["removed"] >= len(listed)
    assert store.data("list") == {"results": [], "next": None}


def test_a_task_that_runs_is_waited_for(server: ServerOf, tmp_path: Path) -> None:
    environ = environment("embedded", server, tmp_path)
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", "--concurrency=1"):
        sent = [tasks_of(app)["sleep"].delay(1.0), tasks_of(app)["add"].delay(1, 2)]
        ended = run_apart("broker-profiles", "results", "wait", *(each.id for each in sent), **environ)
    assert ended.exit_code == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == sorted(f"SUCCESS  {each.id}" for each in sent)
