"""Patience on a machine where everybody waits for a processor."""

from __future__ import annotations

import pytest

from broker_profiles.comparison.pressure import OVERLOAD, Meter, Patience, stalled, worth


class Machine:
    """A clock, and the time in which somebody has waited for a processor."""

    def __init__(self) -> None:
        self.now = self.stalled = 0.0

    def meter(self) -> Meter:
        return Meter(lambda: self.stalled, lambda: self.now)

    def passes(self, seconds: float, share: float) -> None:
        self.now += seconds
        self.stalled += seconds * share


@pytest.mark.parametrize("share", [0.0, 0.5, OVERLOAD])
def test_a_second_is_a_second_where_processors_are_to_be_had(share: float) -> None:
    machine = Machine()
    patience = Patience(10, machine.meter())
    machine.passes(10, share)
    assert not patience.over()
    machine.passes(0.1, share)
    assert patience.over()


def test_an_overloaded_machine_gets_up_to_four_times_as_long() -> None:
    machine = Machine()
    patience = Patience(10, machine.meter())
    for _ in range(40):
        machine.passes(1, 1.0)
        assert not patience.over()
    machine.passes(0.1, 1.0)
    assert patience.over()


def test_only_the_time_of_the_overload_counts_less() -> None:
    machine = Machine()
    patience = Patience(10, machine.meter())
    machine.passes(20, 1.0)  # as good as five
    assert not patience.over()
    machine.passes(5.1, 0.0)
    assert patience.over()


def test_the_worth_of_a_second_falls_steadily_and_never_to_nothing() -> None:
    shares = [number / 100 for number in range(121)]
    found = [worth(share) for share in shares]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.25)


def test_a_lap_is_counted_once() -> None:
    machine = Machine()
    meter = machine.meter()
    machine.passes(4, 0.5)
    assert meter.lap() == (4, 0.5)
    assert meter.lap() == (0, 0.0)


def test_the_machine_is_asked_where_it_says_something() -> None:
    assert 0.0 <= stalled() <= stalled()
