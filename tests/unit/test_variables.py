"""What the caller's environment says to the caller's own programs does not reach those of the suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from broker_profiles.comparison.client import Client
from broker_profiles.comparison.column import Host, file_variables, parse
from broker_profiles.comparison.ledger import VARIABLE, Ledger
from broker_profiles.comparison.processes import Process
from broker_profiles.comparison.variables import PREFIX_VARIABLE, base_environment

#: Each made a run fail, or changed what it tested.
OF_THE_CALLER = {
    "BROKER_PROFILE": "rabbitmq",
    "BROKER_PROFILE_LEASE_SECONDS": "300",
    "BROKER_PROFILE_DELIVERY_LIMIT": "500",
    "BROKER_PROFILE_NO_SUCH_THING": "1",
    "BROKER_URL": "redis://elsewhere",
    "CELERY_BROKER_URL": "redis://elsewhere",
    "CELERY_RESULT_BACKEND": "redis://elsewhere",
    "CELERY_CONFIG_MODULE": "no.such.module",
    "REDIS_URL": "redis://elsewhere",
    "REDIS_URL_FILE": "/run/secrets/redis",
    "RESULT_REDIS_URL": "redis://elsewhere",
    "RESULT_DATABASE_URL_FILE": "/run/secrets/database",
    "RABBITMQ_URL_FILE": "/run/secrets/rabbitmq",
    "MONGODB_URL": "mongodb://elsewhere",
    "DATABASE_URL": "postgresql://elsewhere",
    "REMAP_SIGTERM": "SIGQUIT",
}
STAYS = {
    "PATH": os.environ["PATH"],
    "BROKER_PROFILES_SERVERS": "process",
    "BROKER_PROFILES_DEBUG": "1",
    "SSL_CERT_FILE": "/etc/ssl/ca.pem",
    "WEBSITE_URL": "https://example.org",
}


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_THE_CALLER.items():
        monkeypatch.setenv(name, value)


def names(app: object) -> list[str]:
    """In a client: return the names of its environment."""
    return sorted(os.environ)


def test_what_is_left_is_what_is_about_something_else() -> None:
    assert base_environment({**OF_THE_CALLER, **STAYS}) == STAYS


def test_a_process_gets_what_is_given_to_it_alone(caller: None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(*sorted(os.environ), sep='\\n')"]
    process = Process("p", command, {"REDIS_URL": "redis://ours"}, tmp_path / "log")
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()
    found = process.output().split()
    assert {name for name in found if name in OF_THE_CALLER} == {"REDIS_URL"}
    assert "PATH" in found


def test_a_client_gets_what_is_given_to_it_alone(caller: None, tmp_path: Path) -> None:
    """Any of these variables would keep it from starting."""
    given = {
        **file_variables(tmp_path),
        VARIABLE: str(Ledger(tmp_path / "ledger").folder),
        PREFIX_VARIABLE: "bp-test",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    client = Client(given, tmp_path / "client.log")
    try:
        found = client.call(names)
    finally:
        client.kill()
    assert not {name for name in found if name in OF_THE_CALLER}


def test_the_settings_that_are_reported_are_those_of_the_processes() -> None:
    settings = Host(parse("embedded"), {**OF_THE_CALLER, **STAYS}).settings()
    (url,) = [setting.value for setting in settings if setting.name == "broker_url"]
    assert "FOLDER-OF-THE-CASE" in url
    assert not [setting for setting in settings if setting.source in OF_THE_CALLER]
