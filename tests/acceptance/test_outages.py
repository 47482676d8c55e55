"""Servers that are killed and frozen: an error in time for who sends, and work that goes on by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from broker_profiles.errors import StoreError
from tests.acceptance.running import client, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf
from tests.waiting import poll, until

PROFILES = ["redis+none", "postgresql+none", "mysql+none", "rabbitmq+none"]

#: The bound of DEL-3, in seconds.
IN_TIME = 10.0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_frozen_broker_is_an_error_in_time(profile: str, server: ServerOf, tmp_path: Path) -> None:
    environ = environment(profile, server, tmp_path)
    running = server(profile.partition("+")[0])
    if not running.owned:
        pytest.skip("the server is not ours to freeze")
    with client(environ) as app:
        noop = tasks_of(app)["noop"]
        noop.delay()
        running.pause()
        try:
            began = time.monotonic()
            with pytest.raises((OperationalError, StoreError, OSError)):
                noop.delay()
            assert time.monotonic() - began < IN_TIME
        finally:
            running.resume()
        until(lambda: sends(noop), 30, "sending works again")


@pytest.mark.parametrize("profile", PROFILES)
def test_work_goes_on_after_the_broker_was_killed(profile: str, server: ServerOf, tmp_path: Path) -> None:
    environ = environment(profile, server, tmp_path)
    running = server(profile.partition("+")[0])
    if not running.owned:
        pytest.skip("the server is not ours to kill")
    ledger = tmp_path / "ledger"
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", "--concurrency=2"):
        noop = tasks_of(app)["noop"]
        sent = send_for(noop, 1.0)
        running.kill()
        with pytest.raises((OperationalError, StoreError, OSError)):
            noop.delay()
        running.start()
        until(lambda: sends(noop), 30, "sending works again")
        sent |= {noop.delay().id for _ in range(20)}
        until(lambda: sent <= set(runs(ledger)), 40, "every task that was accepted runs")


def send_for(task: object, seconds: float) -> set[str]:
    """Send tasks one after the other for so long and return their ids."""
    sent: set[str] = set()
    poll(lambda: sent.add(task.delay().id), seconds, every=0.05)  # type: ignore[attr-defined]
    return sent


def sends(task: object) -> bool:
    """Return whether a task can be sent."""
    try:
        task.delay()  # type: ignore[attr-defined]
    except (OperationalError, StoreError, OSError):
        return False
    return True
