"""The same through `celery -A tasks`: our commands as a plugin, and wrong configurations in Celery's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.test_cli import PASSWORD, assert_one_line, run_apart


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tmp_path / "store.sqlite3"))


def test_our_commands_are_there_as_profile() -> None:
    page = run_apart("celery", "-A", "tasks", "profile", "--help")
    assert page.exit_code == 0
    assert all(name in page.stdout for name in ("list", "show", "check", "demo"))
    # The variables are the same wherever a command is reached from.
    assert "BROKER_PROFILES_LIST_JSON" in run_apart("celery", "profile", "list", "--help").stdout


def test_show_tells_the_settings_of_the_application_apart() -> None:
    shown = json.loads(run_apart("celery", "-A", "tasks", "profile", "show", "--json").stdout)
    sources = {setting["name"]: setting["source"] for setting in shown["settings"]}
    assert sources["task_routes"] == sources["beat_schedule"] == "application tasks"
    assert sources["task_acks_late"] == "broker embedded (durable)"


def test_show_says_where_the_application_overrides_its_profile(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from broker_profiles import celery_app\n"
        "app = celery_app('shop')\n"
        "app.conf.worker_prefetch_multiplier = 7\n"
        f"app.conf.security_key_password = {PASSWORD!r}\n"
    )
    ended = run_apart("celery", "-A", "shop", "profile", "show", "--json", cwd=tmp_path)
    settings = {setting["name"]: setting for setting in json.loads(ended.stdout)["settings"]}
    assert settings["worker_prefetch_multiplier"]["value"] == 7
    assert settings["worker_prefetch_multiplier"]["source"] == "application shop"
    assert PASSWORD not in ended.output


def test_an_application_without_a_profile_is_told_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("from celery import Celery\napp = Celery('plain')\n")
    ended = run_apart("celery", "-A", "plain", "profile", "check", cwd=tmp_path)
    assert_one_line(ended, 2, "'plain'", "broker_profiles.configure(app)")


def test_check_through_an_application() -> None:
    ended = run_apart("celery", "-A", "tasks", "profile", "check", "--json")
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["ok"] is True


@pytest.mark.parametrize(
    "command", [["report"], ["worker"], ["beat"], ["inspect", "ping"], ["profile", "list"]]
)
@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"BROKER_PROFILE": "redsi"}, "Did you mean 'redis'?"),
        ({"BROKER_PROFILE_LEASE_SECOND": "9"}, "Did you mean 'BROKER_PROFILE_LEASE_SECONDS'?"),
        ({"BROKER_PROFILE": "redis", "CELERY_BROKER_URL": f"redis://:{PASSWORD}@h"}, "CELERY_BROKER_URL"),
    ],
    ids=["profile", "variable", "address"],
)
def test_celery_ends_with_our_line_too(command: list[str], variables: dict[str, str], part: str) -> None:
    assert_one_line(run_apart("celery", "-A", "tasks", *command, **variables), 2, part)


def test_inspect_ping_without_workers_says_that_none_replied() -> None:
    ended = run_apart("celery", "-A", "tasks", "inspect", "ping", "--timeout", "0.5")
    assert "No nodes replied" in ended.stderr
