"""Who only waits is told apart from who works by what passes over the network, second by second."""

from __future__ import annotations

import pytest

from broker_profiles.comparison.idle import Idle, is_even


@pytest.mark.parametrize(
    "passed",
    [
        [0, 0, 0],
        [0, 1700, 0],
        [330, 640, 330],
        [10_500, 9_900, 12_400],
        [35_000, 34_000, 54_000],
        [30_000, 90_000, 0, 0, 1700],
    ],
    ids=["silence", "renewals", "blocking", "polling", "polling much", "after work"],
)
def test_seconds_of_waiting_are_alike(passed: list[int]) -> None:
    assert is_even(passed)


@pytest.mark.parametrize(
    "passed",
    [[], [0, 0], [3300, 0, 0], [0, 0, 3300], [29_500, 10_500, 10_400]],
    ids=["nothing known", "not long enough", "its end", "its beginning", "its end beside polling"],
)
def test_seconds_of_work_are_not(passed: list[int]) -> None:
    assert not is_even(passed)


class Network:
    """A time, and what has passed by then."""

    def __init__(self) -> None:
        self.now = 100.0
        self.carried = 7_000

    def idle(self) -> Idle:
        return Idle(lambda: self.carried, lambda: self.now)

    def passes(self, condition: Idle, *seconds: int) -> list[bool]:
        """Let these bytes pass, one number a second; return what the condition said at the end of each."""
        said = []
        for carried in seconds:
            for _ in range(4):
                self.carried += carried // 4
                self.now += 0.25
                answer = condition()
            said.append(answer)
        return said


def test_what_passed_before_it_was_asked_does_not_count() -> None:
    network = Network()
    assert network.passes(network.idle(), 0, 0, 0) == [False, False, True]


def test_it_is_idle_once_three_seconds_after_the_work_are_alike() -> None:
    network = Network()
    said = network.passes(network.idle(), 9_000, 50_000, 4_000, 0, 1_600, 0)
    assert said == [False, False, False, False, False, True]


def test_asking_often_makes_no_second_shorter() -> None:
    network = Network()
    condition = network.idle()
    assert not any(condition() for _ in range(100))
