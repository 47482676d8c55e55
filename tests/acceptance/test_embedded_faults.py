"""The embedded profile while processes are killed and frozen: nothing lost, by id."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.store import Sizes
from tests.acceptance.running import Worker, client, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.waiting import poll, until

TASKS = 10_000
LAST = 1_000
WORKER_KILLS = 5


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "BROKER_PROFILE": "embedded",
        "BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "embedded.sqlite3"),
        "BROKER_PROFILE_LEASE_SECONDS": "2",
        "ACCEPTANCE_LEDGER": str(tmp_path / "ledger"),
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def sizes(environ: dict[str, str]) -> Sizes:
    store = SQLiteStore.open(f"sqlite:///{environ['BROKER_PROFILE_EMBEDDED_PATH']}", {})
    try:
        return store.sizes("celery")
    finally:
        store.close()


def held_tasks(environ: dict[str, str]) -> int:
    return sizes(environ).leased


class Mortal:
    """A worker that is killed now and then, and one of its children every second; each has a successor."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._start = partial(Worker, environ, log, "--concurrency=2")
        self.running = self._start()
        self.killed = 0
        self._next_kill = time.monotonic() + 1
        self._next_death = time.monotonic() + 2.5

    def look_after(self) -> None:
        """Do what it is time for."""
        if self.running.process.poll() is not None:
            # Celery gives up where a child dies while the pool starts; a supervisor starts anew.
            self.running = self._start()
        if time.monotonic() >= self._next_kill:
            for pid in self.running.children()[:1]:
                os.kill(pid, signal.SIGKILL)
            self._next_kill = time.monotonic() + 1
        if self.killed < WORKER_KILLS and time.monotonic() >= self._next_death:
            self.running.kill()
            self.killed += 1
            self.running = self._start()
            self._next_death = time.monotonic() + 3


def test_nothing_is_lost_though_processes_are_killed(
    environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    with client(environ) as app:
        noop = tasks_of(app)["noop"]
        # The rest is sent after the last kill, so that every kill finds work to interrupt.
        sent = {noop.delay().id for _ in range(TASKS - LAST)}
        mortal = Mortal(environ, log)

        def all_ran() -> bool:
            if mortal.killed == WORKER_KILLS and len(sent) < TASKS:
                sent.update(noop.delay().id for _ in range(LAST))
            mortal.look_after()
            return len(sent) == TASKS and set(runs(ledger)) == sent

        try:
            poll(all_ran, 200, every=0.1)
            assert set(runs(ledger)) == sent, f"lost: {len(sent - set(runs(ledger)))}"
            assert mortal.killed == WORKER_KILLS
            until(lambda: sizes(environ) == Sizes(), 30, "every message is acknowledged")
        finally:
            mortal.running.kill()
    # What ran twice was in flight when something was killed: a few dozen a kill, not thousands.
    repeated = sum(count - 1 for count in runs(ledger).values())
    assert repeated < TASKS / 10


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_living_worker_keeps_its_lease(
    pool: str, environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    with client(environ) as app, worker(environ, app, log, f"--pool={pool}", "--concurrency=1"):
        result = tasks_of(app)["sleep"].delay(7)
        # A second worker would get the message if the lease of two seconds ran out.
        with worker(environ, app, tmp_path / "other.log", "--concurrency=1"):
            assert result.get(timeout=40) == "slept"
    assert runs(tmp_path / "ledger") == {result.id: 1}


def test_a_frozen_worker_cannot_acknowledge_what_another_holds(
    environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    with client(environ) as app, worker(environ, app, log, "--concurrency=1") as frozen:
        result = tasks_of(app)["sleep"].delay(4)
        until(lambda: runs(ledger)[result.id] == 1, 20, "the first worker runs the task")
        os.killpg(frozen.process.pid, signal.SIGSTOP)
        with worker(environ, app, tmp_path / "other.log", "--concurrency=1"):
            until(lambda: runs(ledger)[result.id] == 2, 20, "another worker runs it")
            os.killpg(frozen.process.pid, signal.SIGCONT)
            # Its sleep is over, or Celery stops it for having lost its lease; either way it settles
            # nothing while the other holds the message.
            assert_stays(lambda: held_tasks(environ) == 1, 1.0)
            until(lambda: ended(ledger) >= 1, 20, "the other worker finishes")
            until(lambda: sizes(environ) == Sizes(), 10, "the message is acknowledged")
        assert result.get(timeout=10) == "slept"
    assert runs(ledger) == {result.id: 2}


def test_a_task_that_kills_its_worker_becomes_a_dead_letter(
    environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    with client(environ) as app, worker(environ, app, log, "--concurrency=1"):
        tasks = tasks_of(app)
        poison = tasks["die"].delay()
        until(lambda: sizes(environ).dead == 1, 60, "the poison message is set aside")
        assert runs(tmp_path / "ledger")[poison.id] == 5
        assert tasks["add"].delay(1, 2).get(timeout=20) == 3


def test_a_graceful_stop_returns_what_it_does_not_finish(
    environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    with client(environ) as app:
        sleep = tasks_of(app)["sleep"]
        sent = {sleep.delay(0.3).id for _ in range(20)}
        with worker(environ, app, log, "--concurrency=2"):
            until(lambda: len(runs(ledger)) >= 4, 20, "some tasks run")
        assert sizes(environ).leased == 0
        with worker(environ, app, log, "--concurrency=2"):
            until(lambda: ended(ledger) == len(sent), 30, "the rest run")
    assert runs(ledger) == dict.fromkeys(sent, 1)


def ended(ledger: Path) -> int:
    return sum(line.startswith("end ") for line in ledger.read_text().splitlines())


def assert_stays(condition: object, seconds: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition()
        threading.Event().wait(0.05)


def test_children_that_are_replaced_share_no_lock(environ: dict[str, str], log: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    options = ("--concurrency=2", "--max-tasks-per-child=1")
    with client(environ) as app, worker(environ, app, log, *options):
        add = tasks_of(app)["add"]
        results = [add.delay(number, 1) for number in range(60)]
        assert [result.get(timeout=60) for result in results] == [number + 1 for number in range(60)]
    assert set(runs(ledger)) == {result.id for result in results}


@pytest.mark.parametrize(("lease", "frozen_for"), [("40", 0), ("3", 12)])
def test_remote_control_goes_on(
    lease: str, frozen_for: int, environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    environ["BROKER_PROFILE_LEASE_SECONDS"] = lease
    with client(environ) as app, worker(environ, app, log, "--concurrency=1") as running:
        if frozen_for:
            os.killpg(running.process.pid, signal.SIGSTOP)
            threading.Event().wait(frozen_for)
            os.killpg(running.process.pid, signal.SIGCONT)
        else:
            # Longer than the ten seconds after which Celery lets an unused control queue expire.
            threading.Event().wait(12)
        until(lambda: app.control.ping(destination=[running.name], timeout=1), 20, "it answers")
        assert tasks_of(app)["add"].delay(1, 2).get(timeout=20) == 3
