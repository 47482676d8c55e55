"""Celery's own beat, Flower and remote control beside a worker of the task package, on every profile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from config.celeryconfig import beat_schedule
from tests.acceptance.running import ROOT, client
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf
from tests.waiting import until

PROFILES = [
    "embedded",
    "rabbitmq+redis",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "postgresql", "mysql", "mongodb")),
]
TICK_SECONDS = 0.5
TICKS = 3
TASKS = 20


def celery(*arguments: str) -> list[str]:
    """Return the command line of `celery -A tasks ...` with this interpreter."""
    return [sys.executable, "-m", "celery", "-A", "tasks", *arguments]


class Command:
    """A `celery -A tasks ...` that runs until it is told to end; a context manager that leaves nothing."""

    def __init__(self, environ: Mapping[str, str], log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                celery(*arguments),
                env={**os.environ, **environ},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def written(self) -> str:
        """Return its log so far. Fails if it has ended by itself."""
        text = self.log.read_text(encoding="utf-8")
        status = self.process.poll()
        assert status is None, f"{self.log.stem} ended with {status}: {text[-3000:]}"
        return text

    def stop(self, seconds: float = 30) -> None:
        """Ask it to end, as a deploy does. Fails if it does not end well."""
        self.written()
        self.process.terminate()
        status = self.process.wait(seconds)
        assert status == 0, f"{self.log.stem} ended with {status}: {self.log.read_text()[-3000:]}"


class Worker(Command):
    """A worker, which says of each task when it gets it and when it is done."""

    def __init__(self, environ: Mapping[str, str], folder: Path, name: str) -> None:
        arguments = ("worker", f"--hostname={name}", "--loglevel=info")
        super().__init__(environ, folder / "worker.log", *arguments)

    def seen(self, what: str = "succeeded") -> Counter[str]:
        """Return how often each task id was `received`, or `succeeded`."""
        return Counter(re.findall(rf"Task tasks\.\w+\[([\w-]+)\] {what}", self.written()))


class Beat(Command):
    """Beat with the schedule of the package, but faster; it says what it sends."""

    def __init__(self, environ: Mapping[str, str], folder: Path, name: str = "beat") -> None:
        # Without their options, for on a slow machine a tick would expire before it is counted.
        fast = {
            name: {"task": entry["task"], "schedule": TICK_SECONDS} for name, entry in beat_schedule.items()
        }
        # What follows the dashes changes Celery's configuration: a way of Celery's own.
        setting = ("--", f"beat.schedule=(dict){json.dumps(fast)}")
        options = ("--loglevel=debug", f"--schedule={folder / name}")
        super().__init__(environ, folder / f"{name}.log", "beat", *options, *setting)

    def signal(self, number: int) -> None:
        """Send a signal to it and all it started."""
        os.killpg(self.process.pid, number)

    def sent(self) -> set[str]:
        """Return the task ids of its ticks so far."""
        return set(re.findall(r"tasks\.heartbeat sent\. id->(\S+)", self.log.read_text(encoding="utf-8")))


class Flower(Command):
    """Flower on a free port, and what it tells over HTTP."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        # Its password is tested with the compose files.
        environ = {**environ, "FLOWER_UNAUTHENTICATED_API": "true"}
        address = (f"--port={self.port}", "--address=127.0.0.1")
        super().__init__(environ, folder / "flower.log", "flower", *address)

    def get(self, path: str) -> dict[str, Any]:
        """Return what it answers; nothing as long as it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            error.close()
            pytest.fail(f"Flower answers {path} with {error.code}: {self.written()[-3000:]}")
        except OSError:
            self.written()
            return {}

    def knows(self, worker: str) -> bool:
        """Whether it has asked the worker, by remote control, which tasks it has, and got an answer."""
        return "tasks.add" in self.get("/api/workers?refresh=1").get(worker, {}).get("registered", ())

    def succeeded(self) -> dict[str, str]:
        """Return task id -> task name of the tasks that it has seen succeed."""
        tasks = self.get("/api/tasks").items()
        return {task_id: task["name"] for task_id, task in tasks if task["state"] == "SUCCESS"}


@pytest.mark.parametrize("profile", PROFILES)
def test_beat_flower_and_remote_control(profile: str, server: ServerOf, tmp_path: Path) -> None:
    environ = environment(profile, server, tmp_path)
    del environ["ACCEPTANCE_QUEUE"]  # the task package has the default one
    name = f"{uuid.uuid4().hex[:8]}@test"
    with (
        client(environ) as app,
        Worker(environ, tmp_path, name) as worker,
        Beat(environ, tmp_path) as beat,
        Flower(environ, tmp_path) as flower,
    ):
        until(lambda: len(beat.sent()) >= TICKS, 40, "beat sends")
        until(lambda: worker.seen().keys() >= beat.sent(), 40, "the worker runs what beat sends")
        until(lambda: flower.knows(name), 40, "Flower knows the worker")
        # Workers send events only since Flower asked them to. It does that within 5 s of its start, and
        # has to see everything from the first task on that it has seen as a whole.
        until(lambda: "tasks.heartbeat" in flower.succeeded().values(), 20, "Flower sees a tick")
        early = beat.sent()

        sent = {app.send_task("tasks.add", (number, 1)): number + 1 for number in range(TASKS)}
        assert {result: result.get(timeout=20) for result in sent} == sent
        added = {result.id for result in sent}
        until(lambda: flower.succeeded().keys() >= added, 20, "Flower sees every task")
        shown = flower.succeeded()
        assert {shown[task_id] for task_id in added} == {"tasks.add"}

        assert ping(environ, name) == {name: {"ok": "pong"}}

        expected = beat.sent() | added
        beat.stop()
        until(lambda: worker.seen().keys() >= expected, 20, "every tick runs")
        until(lambda: flower.succeeded().keys() >= expected - early, 20, "Flower sees every later tick")
        flower.stop()
        for what in ("received", "succeeded"):
            # Beat may have sent one tick more while it was told to end; that one must not run twice either.
            seen = worker.seen(what)
            assert {seen[task_id] for task_id in expected} == {1}
            assert set(seen.values()) == {1}
        worker.stop()


@pytest.mark.parametrize(
    "profile", ["embedded", *(pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "postgresql"))]
)
def test_beats_take_over_from_each_other(profile: str, server: ServerOf, tmp_path: Path) -> None:
    """One is frozen, the next killed; the one that is thawed then goes on, and no tick is there twice."""
    environ = environment(profile, server, tmp_path)
    del environ["ACCEPTANCE_QUEUE"]
    with Beat(environ, tmp_path, "first") as first, Beat(environ, tmp_path, "second") as second:

        def goes_on(beat: Beat) -> None:
            before = len(beat.sent())
            until(lambda: len(beat.sent()) >= before + TICKS, 40, f"{beat.log.stem} sends")

        until(lambda: len(first.sent() | second.sent()) >= TICKS, 40, "a beat sends")
        first.signal(signal.SIGSTOP)
        goes_on(second)
        first.signal(signal.SIGCONT)
        second.signal(signal.SIGKILL)
        goes_on(first)
        first.stop()
        sent = first.sent() | second.sent()
    with client(environ) as app, app.connection() as connection:
        waiting = connection.default_channel.queue_declare("celery", passive=True).message_count
    # The one that was killed may not have got to say what it sent last.
    assert len(sent) <= waiting <= len(sent) + 1


def ping(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return what `celery inspect ping` prints."""
    # With a destination it ends as soon as that has answered, so a long timeout costs nothing.
    options = ("--json", f"--destination={name}", "--timeout=10")
    done = subprocess.run(
        celery("inspect", *options, "ping"),
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
