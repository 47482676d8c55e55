"""`broker-profiles demo` as users run it: the figures, the exit status, and nothing left behind.

And `broker-profiles check` against the same servers, with addresses that are wrong in one place.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from broker_profiles.demo.counting import count_plainly
from tests.conftest import ServerOf
from tests.waiting import until

COMMAND = [str(Path(sys.executable).with_name("broker-profiles")), "demo"]

Process = subprocess.Popen[str]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary files are the test's own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return {**os.environ, "TMPDIR": str(scratch)}


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """Fail a test after which a worker runs or a temporary file lies there."""
    yield
    assert not _workers(tmp_path)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Have what the tests start hear Ctrl-C: a shell has what it runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _workers(folder: Path) -> list[psutil.Process]:
    """Return the processes whose temporary files are below a folder, workers' children among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(folder)):
                found.append(process)
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    return found


def demo(environ: dict[str, str], *options: str, cwd: Path | None = None, **variables: str) -> Process:
    return subprocess.Popen(
        [*COMMAND, *options],
        env={**environ, **variables},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processor_seconds() -> float:
    """Return what the processes that this one has started and waited for have used, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_it_counts_the_standard_library_in_under_20_seconds(environ: dict[str, str], tmp_path: Path) -> None:
    # Of a processor, for other tests run beside it.
    before = processor_seconds()
    process = demo(environ, "--json", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert 1 < processor_seconds() - before < 20

    found = json.loads(stdout)
    assert (found["profile"], found["workers"]) == ("embedded", 2)
    assert found["files"] > 500
    assert found["tasks"] == -(-found["files"] // 4) + 1
    assert found["result"]["key"].startswith("celery-task-meta-")
    assert json.loads(found["result"]["value"])["result"]["lines"] == found["lines"]
    assert len(found["largest"]) == 10
    assert "tasks:" in stderr  # progress, in plain lines for want of a terminal


def test_people_see_a_table(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    for number in range(9):
        (folder / f"module{number}.py").write_text("class A: pass\n" * (number + 1))
    # A `tasks.py` right here, as every Celery user has one, is not taken for ours.
    (tmp_path / "tasks.py").write_text("raise SystemExit('the wrong tasks')\n")

    stdout, stderr = demo(environ, "--folder", str(folder), cwd=tmp_path).communicate(timeout=60)

    totals = count_plainly(str(path) for path in folder.iterdir())
    assert f"all {totals.files} files" in stdout, stderr
    assert "module8.py" in stdout
    assert "finds the same" in stdout
    assert "tasks a second" in stdout
    assert "celery-task-meta-" in stdout


def test_the_environment_places_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "here.sqlite3"
    process = demo(environ, "--limit", "20", BROKER_PROFILE_EMBEDDED_PATH=str(place))
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert str(place) in stdout
    assert place.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_when_interrupted_it_ends_its_workers(
    number: signal.Signals, environ: dict[str, str], tmp_path: Path
) -> None:
    process = demo(environ)
    # The demo itself, two workers, and a child of each.
    until(lambda: len(_workers(tmp_path)) >= 5, 30, "workers")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in stderr


def test_a_worker_that_cannot_start_is_one_line(environ: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite3"
    other.write_text("somebody else's\n" * 100)
    process = demo(environ, BROKER_PROFILE_EMBEDDED_PATH=str(other))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert [line for line in stderr.splitlines() if line.startswith("Error: ")], stderr
    assert "Traceback" not in stderr


def test_a_folder_without_python_is_exit_2(environ: dict[str, str], tmp_path: Path) -> None:
    process = demo(environ, "--folder", str(tmp_path / "scratch"))
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.count("\n")) == (2, 1), stderr
    assert "no Python files" in stderr


@pytest.mark.parametrize(
    ("profile", "where"),
    [("redis", "redis://"), ("rabbitmq", "rpc://"), ("rabbitmq+redis", "redis://")],
)
def test_the_same_on_servers(profile: str, where: str, environ: dict[str, str], server: ServerOf) -> None:
    urls = {
        f"{system.upper()}_URL": server(system).url for system in ("redis", "rabbitmq") if system in profile
    }
    process = demo(environ, "--limit", "300", "--json", BROKER_PROFILE=profile, **urls)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    found = json.loads(stdout)
    assert (found["profile"], found["files"]) == (profile, 300)
    assert found["result"]["where"].startswith(where)


# -- check --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "part", "words"),
    [
        ("rabbitmq", {}, ""),
        ("rabbitmq", {"password": "wr0ng-w0rd"}, "password is wrong"),
        ("rabbitmq", {"path": "/nosuch"}, "virtual host"),
        ("postgresql", {}, ""),
        ("postgresql", {"password": "wr0ng-w0rd"}, "password is wrong"),
        ("postgresql", {"path": "/nosuch"}, "no such database"),
        ("mysql", {}, ""),
        ("mysql", {"password": "wr0ng-w0rd"}, "password is wrong"),
        ("mysql", {"path": "/nosuch"}, "no such database"),
        ("redis", {}, ""),
        ("redis", {"path": "/99999"}, "no such database"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "right",
)
def test_check_says_which_part_of_an_address_is_wrong(
    system: str, part: dict[str, str], words: str, environ: dict[str, str], server: ServerOf, tmp_path: Path
) -> None:
    url = _changed(server(system).url, **part)
    profile = system if system == "rabbitmq" else f"embedded+{system}"
    variables = {"BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "store.sqlite3")}
    variables["DATABASE_URL" if system in ("postgresql", "mysql") else f"{system.upper()}_URL"] = url
    ended = subprocess.run(
        [COMMAND[0], "check", profile],
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == bool(words), ended.stderr
    assert words in ended.stderr
    assert ended.stderr.count("\n") == bool(words), ended.stderr
    for password in (urlsplit(url).password, urlsplit(server(system).url).password):
        assert not password or f":{password}@" not in ended.stdout + ended.stderr
    assert "wr0ng" not in ended.stdout + ended.stderr


def _changed(url: str, *, password: str = "", path: str = "") -> str:
    parts = urlsplit(url)
    netloc = parts.netloc
    if password:
        netloc = f"{parts.username}:{password}@{netloc.rpartition('@')[2]}"
    return parts._replace(netloc=netloc, path=path or parts.path).geturl()
