"""The watcher and the keeper go on whatever their store does."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports import threads
from broker_profiles.transports.threads import Keeper, Watcher


class Store:
    """A store that is away at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.closed = 0
        self.backlog = 0
        self.did: list[str] = []

    def clone(self) -> Store:
        return self

    def close(self) -> None:
        self.closed += 1

    def _work(self) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable(store="it", problem="away")
        return True

    def wait(self, queues: Any, timeout: float) -> bool:
        return self._work()

    def renew(self, consumer: str, queues: Any) -> bool:
        self.did.append("renewed")
        return self._work()

    def expire_dead_letters(self, queues: Any, seconds: float, kept: int) -> int:
        assert (queues, seconds, kept) == (["q"], 60.0, 2)
        self.did.append("cleared")
        self.backlog = max(0, self.backlog - 1)
        return 100 if self.backlog else 0


class Transport:
    consumer_id = "c"
    retention = 60.0, 2

    def __init__(self, store: Store) -> None:
        self.store = store
        self.looked = threading.Event()
        self.kept = threading.Event()
        self.settlements = self

    def waited_queues(self) -> tuple[list[str], bool]:
        return ["q"], True

    def consumed_queues(self) -> list[str]:
        return ["q"]

    def look_again(self) -> None:
        self.looked.set()

    def settle_overdue(self, store: Store, seconds: float) -> None:
        self.kept.set()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_SLICE", 0.01)


@pytest.mark.parametrize("failures", [0, 3])
def test_the_watcher_wakes_the_loop_after_errors(failures: int) -> None:
    transport = Transport(Store(failures))
    watcher = Watcher(transport)  # type: ignore[arg-type]
    watcher.start()
    watcher.arm()
    assert transport.looked.wait(10)
    watcher.end()
    watcher.join(10)
    assert not watcher.is_alive()
    assert transport.store.closed == failures + 1


@pytest.mark.parametrize("failures", [0, 3])
def test_the_keeper_renews_after_errors(failures: int) -> None:
    transport = Transport(Store(failures))
    keeper = Keeper(transport, 3.0)  # type: ignore[arg-type]
    keeper.start()
    assert transport.kept.wait(10)
    keeper.end()
    keeper.join(10)
    assert not keeper.is_alive()


def test_a_lease_is_renewed_between_two_pages_of_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport(Store(0))
    transport.store.backlog = 5
    keeper = Keeper(transport, 3.0)  # type: ignore[arg-type]
    clock = (half * 0.5 for half in itertools.count())
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    for _ in range(5):
        keeper.step(transport.store)  # type: ignore[arg-type]
    two_steps = ["renewed", "cleared", "cleared"]
    assert transport.store.did == [*two_steps, *two_steps, "renewed", "cleared"]
    assert transport.store.backlog == 0
