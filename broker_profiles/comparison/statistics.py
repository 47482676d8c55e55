"""What a handful of measurements says, and what it does not: pure functions of numbers."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")

#: How sure an interval is.
LEVEL = 0.95

#: The same measurements give the same interval, today and tomorrow.
_SEED = 20_240_229
_DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and the interval it is likely to lie in.

    `low` and `high` are none where one measurement is all there is: then nothing is known of its spread.
    """

    median: float
    low: float | None
    high: float | None


def estimate(samples: Sequence[float]) -> Estimate:
    """Return the median with its interval by bootstrap. Raises `ValueError` where there is no sample."""
    if not samples:
        raise ValueError("no samples")
    middle = statistics.median(samples)
    if len(samples) == 1:
        return Estimate(middle, None, None)
    draws = random.Random(_SEED)
    medians = sorted(statistics.median(draws.choices(samples, k=len(samples))) for _ in range(_DRAWS))
    low = nearest_rank(medians, (1 - LEVEL) / 2)
    high = nearest_rank(medians, (1 + LEVEL) / 2)
    return Estimate(middle, min(low, middle), max(high, middle))


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the ordered values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max, each a value that was measured. Raises `ValueError` for no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    found = {f"p{percent}": nearest_rank(ordered, percent / 100) for percent in (50, 95, 99)}
    return {**found, "max": ordered[-1]}


def tied(one: Estimate, other: Estimate) -> bool:
    """Return whether the intervals overlap, or one of the two is not known."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def ranked(estimates: Mapping[Key, Estimate], *, highest_first: bool) -> list[list[Key]]:
    """Return the keys in groups, best first: who is tied with the first of a group belongs to it.

    The order within a group says nothing.
    """
    order = sorted(estimates, key=lambda key: estimates[key].median, reverse=highest_first)
    groups: list[list[Key]] = []
    for key in order:
        if groups and tied(estimates[groups[-1][0]], estimates[key]):
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups
