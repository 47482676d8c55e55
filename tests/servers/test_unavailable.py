"""A server that cannot be had: one line a way, saying what to do. Needs no server."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_ways import ENVIRON

from broker_profiles.comparison.servers import ServerUnavailable, names, programs, provide
from broker_profiles.comparison.servers.base import free_ports
from broker_profiles.comparison.servers.description import Account, load, redact

NOWHERE = "broker-profiles-nowhere:0"


def _reasons(system: str, **variables: str) -> list[str]:
    with pytest.raises(ServerUnavailable) as caught:
        provide(system, {**ENVIRON, **variables})
    title, *reasons = str(caught.value).splitlines()
    assert title == f"no {system} server:"
    return reasons


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda native: {})
    monkeypatch.setattr(programs, "can_install", lambda: False)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("system", names())
def test_one_line_a_way_says_what_to_do(system: str) -> None:
    began = time.monotonic()
    variable = load(system).image_variable
    url, container, process = _reasons(system, **{variable: NOWHERE})
    assert time.monotonic() - began < 30, "that is not failing fast"
    assert load(system).url_variable in url
    assert f"docker pull {NOWHERE}" in container or "start Docker" in container
    if system == "mongodb":
        assert "set MONGODB_URL" in process
    else:
        assert "apt-get install" in process


def test_no_engine_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    (reason,) = _reasons("redis", BROKER_PROFILES_SERVERS="container")
    assert "no container engine answers (start Docker" in reason


def test_the_way_can_be_restricted() -> None:
    (reason,) = _reasons("redis", BROKER_PROFILES_SERVERS="url")
    assert reason.strip().startswith("url: REDIS_URL")
    with pytest.raises(ServerUnavailable, match="did you mean 'container'"):
        provide("redis", {"BROKER_PROFILES_SERVERS": "containers"})


def test_an_unknown_system_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mongodb, mysql, postgresql, rabbitmq, redis"):
        provide("kafka", {})


def test_a_database_url_is_of_one_system() -> None:
    (reason,) = _reasons(
        "mysql", BROKER_PROFILES_SERVERS="url", DATABASE_URL="postgresql+psycopg://u:secret@h/d"
    )
    assert "DATABASE_URL has no URL with mysql://" in reason
    assert "secret" not in reason


@pytest.mark.parametrize("system", names())
def test_a_server_that_is_not_there_is_told_without_its_password(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker_profiles.comparison.servers.external.ANSWER_SECONDS", 0.5)
    description = load(system)
    account = Account(free_ports(1)[0])
    (reason,) = _reasons(system, **{description.url_variable: description.url(account)})
    assert f"url {description.url_variable}" in reason
    assert "no answer within 0.5 s" in reason
    assert account.password not in reason
    assert account.password not in repr(account)


def test_passwords_are_hidden_in_every_spelling() -> None:
    url = "redis://:a%2Fb%40c@127.0.0.1/0"
    assert redact(f"{url} a%2Fb%40c\na/b@c", url) == "redis://:***@127.0.0.1/0 *** ***"
    assert redact("http://[broken said", "http://[broken") == "*** said"


class TestInstalling:
    def test_the_machines_policy_is_restored(self, tmp_path: Path) -> None:
        policy = tmp_path / "policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 0\n")
        policy.chmod(0o755)
        with programs._no_services(policy):
            assert "exit 101" in policy.read_text()
            assert policy.stat().st_mode & stat.S_IXUSR
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
        assert [path.name for path in tmp_path.iterdir()] == ["policy-rc.d"]

    def test_a_machine_without_policy_has_none_afterwards(self, tmp_path: Path) -> None:
        policy = tmp_path / "policy-rc.d"
        with programs._no_services(policy):
            assert policy.exists()
        assert list(tmp_path.iterdir()) == []

    def test_a_policy_that_forbids_is_left_alone(self, tmp_path: Path) -> None:
        policy = tmp_path / "policy-rc.d"
        policy.write_text("#!/bin/sh\n# mine\nexit 101\n")
        policy.chmod(0o755)
        with programs._no_services(policy):
            assert "# mine" in policy.read_text()

    def test_one_package_is_installed_after_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Columns start their servers side by side; dpkg and the policy are there once."""
        at_work: list[str] = []
        done: list[str] = []
        together = threading.Event()

        @contextlib.contextmanager
        def no_services() -> Iterator[None]:
            yield

        def run(command: list[str]) -> subprocess.CompletedProcess[str]:
            if at_work:
                together.set()
            at_work.append(command[-1])
            assert not together.wait(0.05)
            done.append(at_work.pop())
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(programs, "_no_services", no_services)
        monkeypatch.setattr(programs, "_run", run)
        packages = [f"package-{number}" for number in range(5)]
        with ThreadPoolExecutor(len(packages)) as lanes:
            list(lanes.map(programs.install, packages))
        assert sorted(done) == packages

    def test_the_newest_version_is_found_first(self, tmp_path: Path) -> None:
        for version in ("9", "15", "17"):
            for program in ("postgres", "initdb"):
                file = tmp_path / version / "bin" / program
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch(0o755)
        native = type(load("postgresql").native)()
        native.folders = (f"{tmp_path}/*/bin",)
        found = programs.find(native, path="")
        assert {place.parent.parent.name for place in found.values()} == {"17"}
        assert set(found) == {"postgres", "initdb"}


def test_free_ports_are_no_clients_ports() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port < 32_768 for port in ports)
