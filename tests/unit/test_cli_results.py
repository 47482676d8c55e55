"""`results` without servers: where there is nothing to list, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from celery import Celery

from broker_profiles import configure
from broker_profiles.results.kept import LOOKED_AT, Kept, Wanted, page_of
from tests.unit.test_cli import PASSWORD, assert_one_line, run, run_apart


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tmp_path / "store.sqlite3"))


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("rabbitmq", "rpc: only the process that sent the task"),
        ("redis+none", "there is no result store"),
        ("memory", "no other process can read them"),
        ("stock-redis", "a baseline"),
    ],
)
@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["wait", "x"], ["purge"]])
def test_where_nothing_can_be_looked_at_one_line_says_why(
    command: list[str], profile: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PROFILE", profile)
    assert_one_line(run("results", *command), 2, repr(profile), why)


def test_a_store_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "postgresql")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{PASSWORD}@localhost:1/shop")
    assert_one_line(run("results", "list"), 1, "nothing listens there")


def test_a_page_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "redis")
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1")
    assert_one_line(run("results", "list", "--after", "x"), 2, "'x'", "results list")


def test_a_page_looks_at_so_many_results_and_no_more() -> None:
    entries = ((str(number), Kept(str(number), "key", "SUCCESS", "1")) for number in range(3 * LOOKED_AT))
    assert page_of(entries, Wanted(5, state="FAILURE")) == ([], str(LOOKED_AT - 1))
    assert next(entries)[0] == str(LOOKED_AT)


def test_results_of_a_task_are_listed_where_their_names_are_stored(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from broker_profiles import celery_app\napp = celery_app('shop')\napp.conf.result_extended = True\n"
    )
    app = configure(Celery("shop", set_as_current=False))
    app.conf.result_extended = True
    for name in ("pay", "ship"):
        meta = {"status": "SUCCESS", "result": 1, "task_id": name, "name": f"shop.{name}"}
        app.backend.set(app.backend.get_key_for_task(name), json.dumps(meta))
    command = ("-A", "shop", "profile", "results", "list", "--task", "shop.pay", "--json")
    ended = run_apart("celery", *command, cwd=tmp_path)
    assert ended.exit_code == 0, ended.stderr
    assert [each["task"] for each in json.loads(ended.stdout)["results"]] == ["shop.pay"]
