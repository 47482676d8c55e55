"""What measurements say: medians, intervals, percentiles, ties."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_profiles.comparison.statistics import (
    Estimate,
    estimate,
    nearest_rank,
    percentiles,
    ranked,
    tied,
)

numbers = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)
samples = st.lists(numbers, min_size=1, max_size=9)
several = st.lists(numbers, min_size=2, max_size=9)
estimates = st.builds(
    lambda median, below, above: Estimate(median, median - below, median + above),
    st.integers(-100, 100).map(float),
    st.integers(0, 30).map(float),
    st.integers(0, 30).map(float),
)


@settings(max_examples=40, deadline=None)
@given(several)
def test_the_interval_holds_the_median_and_lies_within_what_was_measured(values: list[float]) -> None:
    found = estimate(values)
    assert found.median == statistics.median(values)
    assert found.low is not None and found.high is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


@settings(max_examples=20, deadline=None)
@given(several)
def test_the_same_measurements_give_the_same_interval(values: list[float]) -> None:
    assert estimate(values) == estimate(values)


@settings(max_examples=20, deadline=None)
@given(several)
def test_twice_as_large_measurements_have_twice_as_large_an_interval(values: list[float]) -> None:
    once, twice = estimate(values), estimate([2 * value for value in values])
    assert twice == Estimate(2 * once.median, 2 * (once.low or 0.0), 2 * (once.high or 0.0))


def test_equal_measurements_have_no_spread() -> None:
    assert estimate([3.0] * 5) == Estimate(3.0, 3.0, 3.0)


def test_of_one_measurement_no_spread_is_known() -> None:
    assert estimate([3.0]) == Estimate(3.0, None, None)


def test_five_measurements_reach_from_the_least_to_the_most() -> None:
    # More cannot be said of a median of five with 95 % certainty.
    assert estimate([10.0, 12.0, 11.0, 30.0, 9.0]) == Estimate(11.0, 9.0, 30.0)


def test_many_measurements_narrow_the_interval() -> None:
    few, many = estimate([1.0, 2.0, 3.0, 4.0, 5.0]), estimate([1.0, 2.0, 3.0, 4.0, 5.0] * 20)
    assert few.low is not None and many.low is not None and many.low > few.low


def test_no_measurement_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        estimate([])
    with pytest.raises(ValueError, match="no values"):
        percentiles([])


@given(samples)
def test_percentiles_are_values_that_were_measured_and_do_not_fall(values: list[float]) -> None:
    found = list(percentiles(values).values())
    assert set(found) <= set(values)
    assert found == sorted(found)
    assert found[-1] == max(values)


@given(samples, st.floats(min_value=0.01, max_value=1.0))
def test_a_share_of_the_values_is_not_above_its_percentile(values: list[float], share: float) -> None:
    limit = nearest_rank(sorted(values), share)
    assert sum(value <= limit for value in values) >= share * len(values) - 1e-9


def test_percentiles_of_a_hundred() -> None:
    assert percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def test_overlapping_intervals_are_a_tie() -> None:
    assert tied(Estimate(10, 8, 12), Estimate(13, 12, 14))
    assert not tied(Estimate(10, 8, 12), Estimate(13, 12.5, 14))


def test_with_one_measurement_everything_is_a_tie() -> None:
    assert tied(Estimate(10, None, None), Estimate(1000, 999, 1001))


@given(estimates, estimates)
def test_a_tie_is_mutual(one: Estimate, other: Estimate) -> None:
    assert tied(one, other) == tied(other, one)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), estimates, max_size=6), st.booleans())
def test_every_column_has_one_place_and_shares_it_with_its_first_alone(
    found: dict[str, Estimate], highest_first: bool
) -> None:
    groups = ranked(found, highest_first=highest_first)
    assert sorted(name for group in groups for name in group) == sorted(found)
    for group in groups:
        assert all(tied(found[group[0]], found[name]) for name in group)
    for better, worse in pairwise(groups):
        assert not tied(found[better[0]], found[worse[0]])
        assert (found[better[0]].median > found[worse[0]].median) is highest_first


def test_the_best_comes_first() -> None:
    found = {"a": Estimate(10, 9, 11), "b": Estimate(20, 19, 21), "c": Estimate(19.5, 18, 20)}
    assert ranked(found, highest_first=True) == [["b", "c"], ["a"]]
    assert ranked(found, highest_first=False) == [["a"], ["c", "b"]]
