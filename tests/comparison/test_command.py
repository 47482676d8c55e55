"""`broker-profiles compare` as a user runs it: reports, exit statuses, Ctrl-C, foreign servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ServerOf
from tests.waiting import until

PROGRAM = str(Path(sys.executable).with_name("broker-profiles"))

#: A case of a few seconds.
SHORT = "DEL-1/child_killed"


def compare(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "compare", *options],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def started(running: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(running.pid).children(recursive=True)


def results(folder: Path) -> Any:
    return json.loads((folder / "comparison" / "results.json").read_text())


def test_a_run_leaves_a_report_in_every_form(tmp_path: Path) -> None:
    done = compare(tmp_path, "--profiles", "embedded", "--scenarios", SHORT)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "comparison").iterdir()}
    assert files == {"index.html", "results.json", "junit.xml", "comparison.md"}
    (cell,) = results(tmp_path)["cells"]
    assert (cell["column"], cell["promise"], cell["standing"]) == ("embedded", "DEL-1", "holds")
    assert "[1/1] embedded DEL-1/child_killed: kept" in done.stderr
    assert "comparison/index.html" in done.stdout


def test_json_goes_to_standard_output_and_nothing_else(tmp_path: Path) -> None:
    done = compare(tmp_path, "--profiles", "embedded", "--scenarios", SHORT, "--json")
    assert json.loads(done.stdout) == results(tmp_path)


def test_an_earlier_run_is_compared_with(tmp_path: Path) -> None:
    compare(tmp_path, "--profiles", "embedded", "--scenarios", SHORT)
    earlier = tmp_path / "earlier.json"
    document = results(tmp_path)
    document["cells"][0]["standing"] = "broken promise"
    earlier.write_text(json.dumps(document))
    done = compare(tmp_path, "--profiles", "embedded", "--scenarios", SHORT, "--against", str(earlier))
    assert done.returncode == 0, done.stderr
    assert "DEL-1" in done.stdout
    assert "broken promise" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profiles", "reddis"), "Did you mean 'redis'?"),
        (("--profiles", "memory"), "one process"),
        (("--scenarios", "DEL-11"), "Did you mean 'DEL-1'?"),
        (("--scenarios", "DEL-1/child_kiled"), "Did you mean 'DEL-1/child_killed'?"),
        (("--load", "fast"), "'quick', 'full'"),
        (("--out", "/proc/nowhere"), "Cannot write the report"),
        (("--against", "README.md"), "does not exist"),
        (("--against", "other.json"), "results"),
    ],
)
def test_what_cannot_be_run_is_one_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema": 1}')
    done = compare(tmp_path, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_leaves_a_partial_report_and_nothing_behind(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as errors:
        running = subprocess.Popen(
            [PROGRAM, "compare", "--profiles", "embedded", "--scenarios", "DEL-1"],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        until(lambda: len(started(running)) >= 4, 60, "a worker is started")
        children = started(running)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    finally:
        running.kill()
    assert results(tmp_path)["complete"] is False
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(tmp_path.glob("broker-profiles-compare-*"))


def test_a_server_that_was_not_started_here_is_not_harmed(server: ServerOf, tmp_path: Path) -> None:
    redis = server("redis")
    before = redis.state
    done = compare(
        tmp_path,
        "--profiles",
        "redis",
        "--scenarios",
        "DEL-2",
        "--quick",
        REDIS_URL=redis.url,
        BROKER_PROFILES_SERVERS="url",
    )
    assert done.returncode == 0, done.stderr
    (cell,) = results(tmp_path)["cells"]
    assert cell["standing"] == "not tried"
    assert all("was not started here" in case["detail"] for case in cell["cases"])
    assert redis.state == before
    assert redis.url not in (tmp_path / "comparison" / "results.json").read_text()
