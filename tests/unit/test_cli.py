"""The command line without servers: what it lists and shows, and how it answers what is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from broker_profiles.cli import cli
from broker_profiles.cli.listing import condensed
from broker_profiles.cli.output import harmless
from broker_profiles.profile import CONTRACT
from broker_profiles.registry import BROKERS, RESULT_STORES

ADDRESSES = ("RABBITMQ_URL", "REDIS_URL", "DATABASE_URL", "MONGODB_URL")
PASSWORD = "s3cr3t-w0rd"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tmp_path / "store.sqlite3"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="broker-profiles")


@dataclass(frozen=True)
class Ended:
    """What a command in a process of its own has said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_apart(program: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> Ended:
    """Run a program of the virtual environment as users do."""
    ended = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        env={**os.environ, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def data(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# -- list ---------------------------------------------------------------------------------------------


def test_list_names_every_broker_and_result_store() -> None:
    shown = run("list").stdout
    listed = data("list")

    assert all(name in shown for name in (*BROKERS, *RESULT_STORES))
    assert [broker["name"] for broker in listed["brokers"]] == list(BROKERS)
    assert [store["name"] for store in listed["results"]] == list(RESULT_STORES)
    assert listed["contract"] == dict(CONTRACT)


def test_list_says_what_survives_a_power_cut() -> None:
    embedded = next(broker for broker in data("list")["brokers"] if broker["name"] == "embedded")
    assert "SQLITE_SYNCHRONOUS=FULL" in embedded["modes"]["durable"]["note"]


def test_list_verbose_gives_reasons() -> None:
    assert "acknowledged on receipt" in run("list", "--verbose").stdout
    assert "Why it is not kept" not in run("list").stdout


def test_list_of_a_name_answers_every_promise() -> None:
    listed = data("list", "redis:fast+mysql")
    assert (listed["broker"], listed["mode"], listed["results"]) == ("redis", "fast", "mysql")
    assert set(listed["keeps"]) | set(listed["does_not_keep"]) == set(CONTRACT)
    assert all(listed["does_not_keep"].values())

    shown = run("list", "redis:fast+mysql").stdout
    assert all(id_ in shown for id_ in CONTRACT)


def test_list_says_how_to_install_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "redis")
    redis = next(broker for broker in data("list")["brokers"] if broker["name"] == "redis")
    assert redis["installed"] is False
    assert redis["install"] == "pip install 'broker-profiles[redis]'"
    assert "to use it: pip install 'broker-profiles[redis]'" in run("list", "redis").stdout


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (["DEL-1", "DEL-2", "DEL-3", "DEL-6", "ETA-1"], "DEL-1..3,6 ETA-1"),
        (["RES-2", "ETA-2", "ETA-1"], "ETA-1..2 RES-2"),
        ([], ""),
    ],
)
def test_runs_of_ids_are_condensed(ids: list[str], text: str) -> None:
    assert condensed(ids) == text


# -- show ---------------------------------------------------------------------------------------------


def test_show_gives_each_setting_with_source_and_reason() -> None:
    settings = data("show", "embedded")["settings"]
    assert all(setting["source"] and setting["reason"] for setting in settings)
    by_name = {setting["name"]: setting for setting in settings}
    assert by_name["broker_url"]["source"] == "BROKER_PROFILE_EMBEDDED_PATH"
    assert by_name["task_acks_late"]["value"] is True


def test_show_takes_the_profile_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "redis+mysql")
    shown = data("show")
    assert shown["profile"] == "redis+mysql"
    sources = {setting["name"]: setting["source"] for setting in shown["settings"]}
    assert sources["broker_url"] == "default of REDIS_URL"
    assert sources["result_backend"] == "default of DATABASE_URL"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_never_shows_a_password(form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://me:{PASSWORD}@host:5672/")
    monkeypatch.setenv("RESULT_DATABASE_URL", f"postgresql://me:{PASSWORD}@host:5432/results")
    result = run("show", "rabbitmq+postgresql", *form)
    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert "me:***@host:5672" in result.stdout


def test_secrets_of_an_application_are_hidden_wherever_they_are() -> None:
    value = {"url": f"redis://:{PASSWORD}@host", "sentinel": {"password": PASSWORD, "db": 1}}
    assert harmless(value) == {"url": "redis://:***@host", "sentinel": {"password": "***", "db": 1}}
    assert harmless(PASSWORD, "security_key_password") == "***"
    assert harmless(["json"], "accept_content") == ["json"]


# -- what is wrong ------------------------------------------------------------------------------------


def hide(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == driver else find(name, *rest)
    )


def assert_one_line(result: Result | Ended, status: int, *parts: str) -> None:
    assert result.exit_code == status, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    assert all(part in lines[0] for part in parts), lines[0]
    assert PASSWORD not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["show", "check", "demo"])
@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"BROKER_PROFILE": "redsi"}, ["'redsi'", "Did you mean 'redis'?"]),
        ({"BROKER_PROFILE": "redis:fats"}, ["'fats'", "Did you mean 'fast'?"]),
        ({"BROKER_PROFILE": "redis++"}, ["BROKER[:MODE][+RESULTS]"]),
        ({"BROKER_PROFILE": "redis+rpc"}, ["RabbitMQ"]),
        ({"BROKER_PROFILE_LEASE_SECOND": "9"}, ["Did you mean 'BROKER_PROFILE_LEASE_SECONDS'?"]),
        ({"BROKER_PROFILE_DELIVERY_LIMIT": "0"}, ["'0'", "a whole number from 1 to 1000"]),
        ({"BROKER_PROFILE_SQLITE_SYNCHRONOUS": "OFF"}, ["'OFF'", "one of NORMAL, FULL"]),
        ({"BROKER_PROFILE": "redis", "REDIS_URL": f"redis://:{PASSWORD}@h:x/0"}, ["REDIS_URL", "port"]),
        ({"BROKER_PROFILE": "redis", "REDIS_URL": "amqp://host"}, ["REDIS_URL", "'amqp'"]),
        (
            {"BROKER_PROFILE": "redis", "REDIS_URL": "redis://h", "REDIS_URL_FILE": "/f"},
            ["REDIS_URL and REDIS_URL_FILE"],
        ),
        ({"BROKER_PROFILE": "redis", "REDIS_URL_FILE": "/nowhere"}, ["REDIS_URL_FILE", "/nowhere"]),
        ({"CELERY_BROKER_URL": f"redis://:{PASSWORD}@host"}, ["CELERY_BROKER_URL", "BROKER_PROFILE"]),
        ({"CELERY_RESULT_BACKEND": f"redis://:{PASSWORD}@host"}, ["CELERY_RESULT_BACKEND"]),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_2(
    command: str, variables: dict[str, str], parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_one_line(run(command), 2, *parts)


@pytest.mark.parametrize("command", ["check", "demo"])
def test_a_missing_driver_is_one_line_with_the_pip_line(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "redis")
    monkeypatch.setenv("BROKER_PROFILE", "redis")
    assert_one_line(run(command), 2, "pip install 'broker-profiles[redis]'")


@pytest.mark.parametrize(("profile", "part"), [("memory", "one process"), ("redis+none", "stores none")])
def test_the_demo_refuses_what_could_show_nothing(profile: str, part: str) -> None:
    # An address that is named is used as it is; nothing has to answer there to be told this.
    variables = {"BROKER_PROFILE": profile, "REDIS_URL": "redis://127.0.0.1:1/0"}
    assert_one_line(run_apart("broker-profiles", "demo", **variables), 2, part)


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("break")
    def broken() -> None:
        raise RuntimeError(f"two\nlines about redis://:{PASSWORD}@host")

    monkeypatch.setitem(cli.commands, "break", broken)
    assert_one_line(run("break"), 1, "RuntimeError: two lines about redis://:***@host")


@pytest.mark.parametrize("variable", [{}, {"BROKER_PROFILES_DEBUG": "1"}])
def test_debug_raises_instead(variable: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    result = run(*([] if variable else ["--debug"]), "show", "redsi")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "UnknownProfile"


# -- the commands themselves --------------------------------------------------------------------------


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    result = run("lst")
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert "list" in result.stderr


@pytest.mark.parametrize("arguments", [["demo", "--workers", "0"], ["show", "--jsn"], ["list", "a", "b"]])
def test_a_usage_error_is_exit_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def every_command(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, *path, name)


def test_every_option_has_an_environment_twin_that_help_names() -> None:
    for path, command in every_command(cli):
        page = " ".join(run(*path, "--help").stdout.split())
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                assert "_".join(("BROKER_PROFILES", *path, option.name or "")).upper() in page


def test_an_environment_twin_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILES_SHOW_JSON", "1")
    assert json.loads(run("show").stdout)["profile"] == "embedded"


def test_the_version_is_shown() -> None:
    assert run("--version").stdout.startswith("broker-profiles, version ")
