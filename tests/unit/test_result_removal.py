"""When a process removes what has expired: not before it is time, and never at the cost of a task."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from broker_profiles.results import removal
from broker_profiles.results.removal import BATCH, Removal, remove_all


class Clock:
    """The time that `removal` sees."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(removal, "time", clock)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return clock


def times(kept: float | None, clock: Clock, remove: Callable[[], int], seconds: int = 600) -> list[float]:
    """Return when a process removes that stores a result each second."""
    called: list[float] = []

    def noted() -> int:
        called.append(clock.now)
        return remove()

    due = Removal(kept)
    for clock.now in range(seconds):
        due.after_storing(noted)
    return called


@pytest.mark.parametrize(("kept", "every"), [(86_400, 60), (100, 10), (3, 1)])
def test_it_is_once_a_minute_or_a_tenth_of_the_time_that_results_are_kept(
    kept: float, every: int, clock: Clock
) -> None:
    assert times(kept, clock, lambda: 1) == list(range(every, 600, every))


@pytest.mark.parametrize("kept", [None, 0])
def test_nothing_is_removed_where_results_are_kept_for_ever(kept: float | None, clock: Clock) -> None:
    assert times(kept, clock, lambda: 1) == []


def test_it_goes_on_soon_where_there_is_more(clock: Clock) -> None:
    left = iter([BATCH, BATCH, 7])
    assert times(86_400, clock, lambda: next(left), 100) == [60, 61, 62]


def test_a_removal_that_fails_is_tried_again_in_its_turn(clock: Clock) -> None:
    def fail() -> int:
        raise OSError("away")

    assert times(86_400, clock, fail, 200) == [60, 120, 180]


def test_all_is_removed_step_by_step() -> None:
    left = [3, BATCH, BATCH]
    assert remove_all(left.pop) == 2 * BATCH + 3
    assert left == []


def test_processes_of_a_pool_do_not_remove_at_the_same_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Removal(86_400)  # and then they are forked
    due = []
    for drawn in (10.0, 50.0):
        monkeypatch.setattr("random.uniform", lambda low, high, drawn=drawn: drawn)
        child = copy.copy(made)
        called: list[float] = []
        for clock.now in range(60):
            child.after_storing(lambda called=called: called.append(clock.now) or 1)  # type: ignore[misc]
        due.append(called[0])
    assert due == [10, 50]
