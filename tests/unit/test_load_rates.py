"""A load of a fixed rate, on a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_profiles.comparison.load.rates import Schedule, hopeless, latencies, throughput, windows


class Clock:
    """A clock that only sleeping and working moves."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(st.floats(min_value=0.5, max_value=5_000), st.floats(min_value=2.0, max_value=10.0))
def test_tasks_are_evenly_spread_over_the_time(rate: float, seconds: float) -> None:
    schedule = Schedule(rate, seconds)
    assert schedule.count == pytest.approx(rate * seconds, abs=0.5)
    assert schedule.due(0) == 0
    assert schedule.due(schedule.count - 1) < seconds
    assert schedule.due(1) == pytest.approx(1 / rate)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (0.1, 1)])
def test_a_load_without_a_task_is_an_error(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="no task in"):
        Schedule(rate, seconds)


def test_a_sender_in_time_sends_each_task_when_it_is_due() -> None:
    clock = Clock()
    sent = []
    for intended in Schedule(10, 0.5).paced(clock, clock.sleep):
        assert clock.now >= intended
        sent.append(round(clock.now, 6))
        clock.now += 0.01  # the work of sending
    assert sent == [100.0, 100.1, 100.2, 100.3, 100.4]


def test_a_hold_up_moves_no_intended_time() -> None:
    clock = Clock()
    intended, sent = [], []
    for number, due in enumerate(Schedule(10, 0.5).paced(clock, clock.sleep)):
        intended.append(round(due, 6))
        sent.append(round(clock.now, 6))
        if number == 1:
            clock.now += 0.25  # the broker did not answer
    # Given: all five are due as planned. Then: what was held up is late, and that counts.
    assert intended == [100.0, 100.1, 100.2, 100.3, 100.4]
    assert sent == [100.0, 100.1, 100.35, 100.35, 100.4]
    ids = "abcde"
    found = latencies(dict(zip(ids, intended, strict=True)), dict(zip(ids, sent, strict=True)))
    assert found == pytest.approx([0, 0, 0.15, 0.05, 0])


def test_a_task_that_never_started_has_no_latency() -> None:
    assert latencies({"a": 1.0, "b": 2.0}, {"b": 2.5}) == [0.5]


def test_throughput_is_counted_between_the_first_start_and_the_last() -> None:
    assert throughput({"a": 10.0, "b": 10.5, "c": 11.0}) == 2.0
    assert throughput({"a": 10.0}) is None
    assert throughput({"a": 10.0, "b": 10.0}) is None


def test_windows_are_consecutive_and_no_more_than_asked_for() -> None:
    times = [0, 1, 2, 4, 6, 7, 8, 100]
    assert windows(times, 2, 5) == [1.0, 0.5, 1.0]
    assert windows(times, 2, 2) == [1.0, 0.5]
    assert windows(list(reversed(times)), 2, 2) == [1.0, 0.5]
    assert windows([1.0, 2.0], 2, 5) == []


def test_there_is_hope_while_the_rate_so_far_is_nearly_enough() -> None:
    assert not hopeless(done=0, wanted=1000, elapsed=0, budget=10)
    assert not hopeless(done=250, wanted=1000, elapsed=2.5, budget=10)
    assert not hopeless(done=210, wanted=1000, elapsed=2.5, budget=10)
    assert hopeless(done=100, wanted=1000, elapsed=2.5, budget=10)
