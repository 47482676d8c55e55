"""`check`: the embedded profile for real, files and servers that are not as they should be."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_profiles.cli.probes import meaning
from broker_profiles.demo.workers import Workers
from tests.unit.test_cli import ROOT, assert_one_line, run, run_apart


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the embedded profile, which is not there yet."""
    path = tmp_path / "store.sqlite3"
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(path))
    return path


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_without_a_worker_it_is_well_and_says_so(store: Path) -> None:
    result = run("check", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["profile"], found["ok"], found["error"]) == ("embedded", True, None)
    assert [check["name"] for check in found["checks"]] == ["broker", "results", "workers"]
    assert found["checks"][-1]["detail"] == "no worker answers"


def test_it_leaves_no_result_behind(store: Path) -> None:
    assert run("check").exit_code == 0
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (0,)
    connection.close()


def test_with_a_worker_a_task_runs(store: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Workers(1, ["--pool=solo"], environ, tmp_path) as workers:
        deadline = time.monotonic() + 30
        while "task " not in (shown := run("check").stdout):
            workers.check()
            assert time.monotonic() < deadline, shown
    assert "celery.accumulate ran" in shown
    assert workers.names[0] in shown


def test_a_failure_is_in_the_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://me:s3cr3t-w0rd@127.0.0.1:{closed_port()}/")
    result = run("check", "rabbitmq", "--json")
    assert_one_line(result, 1, "nothing listens there", "RABBITMQ_URL")
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert f"Error: {found['error']}" == result.stderr.strip()


# -- servers ------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SERVERS = [
    ("rabbitmq", "RABBITMQ_URL", "amqp://me:s3cr3t-w0rd@127.0.0.1:{port}/"),
    ("redis", "REDIS_URL", "redis://:s3cr3t-w0rd@127.0.0.1:{port}/0"),
    ("stock-redis", "REDIS_URL", "redis://:s3cr3t-w0rd@127.0.0.1:{port}/0"),
    ("embedded+postgresql", "DATABASE_URL", "postgresql://me:s3cr3t-w0rd@127.0.0.1:{port}/d"),
    ("embedded+mysql", "RESULT_DATABASE_URL", "mysql://me:s3cr3t-w0rd@127.0.0.1:{port}/d"),
]


@pytest.mark.parametrize(("profile", "variable", "url"), SERVERS)
def test_a_server_that_is_not_there(
    profile: str, variable: str, url: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url.format(port=closed_port()))
    assert_one_line(run("check", profile), 1, "127.0.0.1")


@pytest.mark.parametrize(("profile", "variable", "url"), SERVERS)
def test_a_server_that_says_nothing(profile: str, variable: str, url: str, store: Path) -> None:
    # In a process of its own: what waits for the server is given up there, not ended.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        address = {variable: url.format(port=silent.getsockname()[1])}
        ended = run_apart("broker-profiles", "check", profile, **address)
    assert time.monotonic() - began < 15
    assert_one_line(ended, 1, "127.0.0.1")


# What the systems say, word for word.
@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("(0, 0): (403) ACCESS_REFUSED - Login was refused using PLAIN", "password is wrong"),
        ("Connection.open: (530) NOT_ALLOWED - vhost nosuch not found", "virtual host"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "password is wrong"),
        ("NOAUTH Authentication required.", "password is wrong"),
        ("DB index is out of range", "no such database"),
        ('FATAL:  password authentication failed for user "me"', "password is wrong"),
        ('FATAL:  database "nosuch" does not exist', "no such database"),
        ("(1045, \"Access denied for user 'me'@'%' (using password: YES)\")", "password is wrong"),
        ("(1044, \"Access denied for user 'me'@'%' to database 'd'\")", "no such database"),
        ("(1049, \"Unknown database 'nosuch'\")", "no such database"),
        ("authentication failed, full error: {'code': 18}", "password is wrong"),
        ("[Errno 111] Connection refused", "nothing listens"),
        ("[Errno -2] Name or service not known", "host is not known"),
        ("certificate verify failed: self-signed certificate", "cannot be verified"),
        ("something new\nunder the sun", "OSError: something new under the sun"),
    ],
)
def test_the_meaning_is_found_below_any_wrapping(said: str, means: str) -> None:
    try:
        try:
            raise OSError(said)
        except OSError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as wrapped:
        assert means in meaning(wrapped)


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "database"])
def test_a_file_that_is_not_ours(kind: str, store: Path) -> None:
    if kind == "text":
        store.write_text("somebody else's\n" * 100)
    else:
        connection = sqlite3.connect(store)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
    before = store.read_bytes()
    assert_one_line(run("check"), 2, str(store), "Name another file")
    assert store.read_bytes() == before


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tmp_path / "none" / "store.sqlite3"))
    assert_one_line(run("check"), 1, "none/store.sqlite3")


def test_a_full_disk(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tiny_disk / "store.sqlite3"))
    with pytest.raises(OSError, match="No space left"), (tiny_disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    # Apart, here and below: a file that is open in this process keeps the disk from being taken away.
    assert_one_line(run_apart("broker-profiles", "check"), 1, str(tiny_disk), "full", "nothing was lost")


def test_a_read_only_disk(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(tiny_disk / "store.sqlite3"))
    assert run_apart("broker-profiles", "check").exit_code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    ended = run_apart("broker-profiles", "check")
    assert_one_line(ended, 1, str(tiny_disk), "cannot be written", "write access")


def test_a_read_only_file(store: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    assert run_apart("broker-profiles", "check").exit_code == 0
    store.chmod(0o444)
    store.parent.chmod(0o555)
    try:
        assert_one_line(run("check"), 1, str(store))
    finally:
        store.parent.chmod(0o755)


def test_check_takes_its_name_before_the_environment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "redis")
    assert json.loads(run("check", "embedded", "--json").stdout)["profile"] == "embedded"
