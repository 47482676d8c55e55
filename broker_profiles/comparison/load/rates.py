"""A load of a fixed rate: when each task ought to be sent, and how late it started measured from then.

A sender that falls behind does not get more time: the tasks after a hold-up are due when they were due, so
the hold-up is in the latency of each of them and not only in that of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Schedule:
    """So many tasks a second for so many seconds. Raises `ValueError` where it would have none."""

    rate: float
    seconds: float

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.seconds > 0 and self.count):
            raise ValueError(f"no task in {self.seconds:g} s at {self.rate:g} a second")

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return round(self.rate * self.seconds)

    def due(self, number: int) -> float:
        """Return the seconds from the beginning to when a task is due, the first of which is 0."""
        return number / self.rate

    def paced(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> Iterator[float]:
        """Yield the intended time of each task, on the clock, not before it has come."""
        began = clock()
        for number in range(self.count):
            intended = began + self.due(number)
            while (left := intended - clock()) > 0:
                sleep(left)
            yield intended


def latencies(intended: Mapping[str, float], started: Mapping[str, float]) -> list[float]:
    """Return the seconds from when each task ought to have been sent to its start, of those that started."""
    return [started[id_] - due for id_, due in intended.items() if id_ in started]


def throughput(starts: Mapping[str, float]) -> float | None:
    """Return tasks a second between the first start and the last; none where there is no time between."""
    if len(starts) < 2:
        return None
    between = max(starts.values()) - min(starts.values())
    return (len(starts) - 1) / between if between > 0 else None


def windows(times: Sequence[float], size: int, most: int) -> list[float]:
    """Return the rates of consecutive windows of so many events, the earliest first, `most` at the most."""
    edges = sorted(times)[::size][: most + 1]
    return [size / (end - begin) for begin, end in pairwise(edges) if end > begin]


def hopeless(done: int, wanted: int, elapsed: float, budget: float) -> bool:
    """Return whether at the rate so far not nearly enough will be done when the budget is used up."""
    return elapsed > 0 and done / elapsed * budget < 0.8 * wanted
