"""Nothing outlives the run, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from server_ways import ENVIRON, Have

from broker_profiles.comparison.servers import Server, ServerPool, ServerUnavailable
from broker_profiles.comparison.servers.containers import ContainerServer
from tests.waiting import poll, until

# Says what exists, then waits for its end, or that of the tests. The child shows that a fork owns
# nothing: when it ends by itself the server stays, and when it outlives its parent the server goes
# nevertheless.
SCRIPT = """
import faulthandler, json, os, select, signal, sys
import psutil
from broker_profiles.comparison.servers import ServerPool

# Where the tests run in the background of a shell they ignore it, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
faulthandler.register(signal.SIGUSR1)
way, system, end = sys.argv[1:]
with ServerPool({**os.environ, "BROKER_PROFILES_SERVERS": way}) as pool:
    server = pool.get(system)
    if os.fork() == 0:
        sys.exit()
    os.wait()
    server.wait_ready(5)
    if way == "container":
        server.fill()  # a volume and a second container, where its disk can be filled
    children = [child.pid for child in psutil.Process().children(recursive=True)]
    forked = os.fork()
    if forked == 0:
        signal.pause()
        os._exit(0)
    print(json.dumps({"children": children, "forked": forked, "folder":
          str(getattr(server, "folder", "")), "container": getattr(server, "name", "")}), flush=True)
    if end == "exit":
        sys.exit(3)
    if end == "close":
        pool.close()
        left = {child.pid for child in psutil.Process().children(recursive=True)}
        os._exit(0 if left == {forked} else 1)
    # Not by reading: a SIGINT just before it would not be seen until there is something to read.
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
"""
# The engine alone may take most of it to remove a container on a busy machine.
DEADLINE = 60.0


@pytest.mark.parametrize(
    ("way", "system", "end"),
    [
        ("process", "redis", "exit"),
        ("process", "redis", "close"),
        ("process", "redis", "SIGINT"),
        ("process", "redis", "SIGTERM"),
        ("process", "redis", "SIGKILL"),
        ("process", "postgresql", "SIGKILL"),
        pytest.param("process", "rabbitmq", "SIGKILL", marks=pytest.mark.slow),
        ("container", "redis", "SIGINT"),
        ("container", "redis", "SIGTERM"),
        ("container", "redis", "SIGKILL"),
        ("container", "postgresql", "close"),
        ("container", "postgresql", "SIGINT"),
        ("container", "postgresql", "SIGKILL"),
    ],
)
def test_nothing_outlives_the_interpreter(
    way: str, system: str, end: str, have: Have, tmp_path: Path
) -> None:
    have(way, system).close()  # it can be had at all, else this skips
    said = tmp_path / "said"  # no pipe: the forked process would keep it open
    with said.open("wb") as errors:
        run = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, way, system, end],
            env=ENVIRON,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert run.stdout is not None
    line = run.stdout.readline()
    if not line:
        run.wait(DEADLINE)
        pytest.fail(said.read_text())
    there = json.loads(line)
    try:
        assert len(there["children"]) >= (1 if way == "container" else 2)  # the guard at least
        if end.startswith("SIG"):
            run.send_signal(getattr(signal, end))
        assert (
            _status(run, said)
            == {
                "exit": 3,
                "close": 0,
                "SIGINT": -signal.SIGINT,
                "SIGTERM": -signal.SIGTERM,
                "SIGKILL": -signal.SIGKILL,
            }[end]
        ), said.read_text()
        until(lambda: not [pid for pid in there["children"] if _runs(pid)], DEADLINE, "no process is left")
        if there["folder"]:
            until(lambda: not Path(there["folder"]).exists(), DEADLINE, "its folder is removed")
        if there["container"]:
            until(lambda: not _containers(there["container"]), DEADLINE, "no container is left")
            until(lambda: not _volumes(there["container"]), DEADLINE, "no volume is left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(there["forked"], signal.SIGKILL)
        run.kill()
        run.communicate()


def _status(run: subprocess.Popen[str], said: Path) -> int:
    """Return how a program ended; where it does not end in time, fail with where it is and what it said."""
    try:
        return run.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        children = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGUSR1)
        poll(lambda: "(most recent call first)" in said.read_text(), 10)
        pytest.fail(f"not ended within {DEADLINE} s; its children: {children}; it said:\n{said.read_text()}")


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _containers(name: str) -> list[Any]:
    import docker  # type: ignore[import-untyped, unused-ignore]

    with contextlib.closing(docker.from_env()) as client:
        return list(client.containers.list(all=True, filters={"name": name}))


def _volumes(name: str) -> list[Any]:
    import docker  # type: ignore[import-untyped, unused-ignore]

    with contextlib.closing(docker.from_env()) as client:
        return list(client.volumes.list(filters={"name": name}))


def test_a_failed_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, have: Have) -> None:
    """Also Ctrl-C in the middle of it."""
    have("container", "redis").close()
    made: list[Server] = []
    before = psutil.Process().children(recursive=True)

    def interrupted(server: Server, timeout: float = 0) -> None:
        made.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "wait_ready", interrupted)
    for way in ("container", "process"):
        with pytest.raises(KeyboardInterrupt):
            have(way, "redis")
    container, process = made
    assert isinstance(container, ContainerServer)
    assert _containers(container.name) == []
    assert not getattr(process, "folder").exists()  # noqa: B009 - of the process only
    assert set(psutil.Process().children(recursive=True)) <= set(before)


class TestPool:
    def test_a_server_is_started_once_and_healed(self) -> None:
        with ServerPool({**ENVIRON, "BROKER_PROFILES_SERVERS": "process"}) as pool:
            try:
                server = pool.get("redis")
            except ServerUnavailable as error:
                pytest.skip(str(error))
            for fault in (server.kill, server.stop, server.pause):
                if fault == server.pause:
                    server.heal()
                fault()
                assert pool.get("redis") is server
                assert server.state == "running"
            assert pool.report() == [server.describe()]
        assert server.state == "closed"

    def test_a_failure_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []

        def fail(system: str, environ: Any) -> Server:
            tried.append(system)
            raise ServerUnavailable("no redis server:\n  url: for a reason")

        monkeypatch.setattr("broker_profiles.comparison.servers.pool.provide", fail)
        with ServerPool({}) as pool:
            for _ in range(2):
                with pytest.raises(ServerUnavailable, match="for a reason"):
                    pool.get("redis")
            assert pool.report() == ["no redis server:\n  url: for a reason"]
        assert tried == ["redis"]
