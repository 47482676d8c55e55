"""A worker that never gets ready: whose fault that is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_profiles.comparison import workers as module
from broker_profiles.comparison.ledger import Ledger, Recorder
from broker_profiles.comparison.scenario import PromiseBroken, TooLate
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from broker_profiles.comparison.workers import WorkerEnded, Workers

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def workers(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Workers that live, and say nothing."""
    monkeypatch.setattr(module, "CELERY", SLEEPS)
    monkeypatch.setattr(module, "START_SECONDS", 0.3)

    def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TooLate(what)
            time.sleep(0.02)

    made = Workers({PREFIX_VARIABLE: "bp-test"}, tmp_path, ledger, wait)
    yield made
    made.close()


def ready(ledger: Ledger, number: int) -> None:
    Recorder(str(ledger.folder)).record("ready", f"w{number}@bp-test")


def test_the_first_start_of_a_case_breaks_no_promise(workers: Workers) -> None:
    """Nothing has been tried yet: the address may be wrong, or the suite."""
    with pytest.raises(WorkerEnded, match=r"not ready within .* s, though nothing was done to its broker"):
        workers.start()
    assert not issubclass(WorkerEnded, PromiseBroken)


def test_a_start_after_a_fault_is_what_is_tried(workers: Workers, ledger: Ledger) -> None:
    ledger.note("broker SIGKILL", fault=True)
    with pytest.raises(TooLate, match="is ready"):
        workers.start()


def test_another_start_is_what_is_tried(workers: Workers, ledger: Ledger) -> None:
    ready(ledger, 1)
    first = workers.start()
    with pytest.raises(TooLate, match="is ready"):
        workers.start()
    first.kill()
    with pytest.raises(TooLate, match="is ready"):
        workers.revive()


def test_one_that_ends_is_told_of_at_once(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELERY", (sys.executable, "-c", "raise SystemExit('last words')"))
    monkeypatch.setattr(module, "START_SECONDS", 30)
    with pytest.raises(WorkerEnded, match="last words"):
        workers.start()


def test_one_that_was_ready_and_ended_between_two_looks_was_ready(
    workers: Workers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a task that kills it: it writes down that it is ready and is dead a moment after a look."""
    monkeypatch.setattr(module, "START_SECONDS", 30)
    worker = workers.start(ready=False)
    look = ledger.ids

    def look_just_before(*kinds: Any) -> set[str]:
        found = look(*kinds)
        if worker.alive:
            ready(ledger, 1)
            worker.kill()
        return found

    monkeypatch.setattr(ledger, "ids", look_just_before)
    workers.wait_ready(worker)
    assert not worker.alive
