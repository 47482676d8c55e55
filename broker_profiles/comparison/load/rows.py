"""What was measured: samples with all that belongs to each, rows of samples, and who is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from broker_profiles.comparison.statistics import Estimate, estimate, percentiles, ranked

Numbers = Mapping[str, float]
Account = Mapping[str, int]
Parameter = str | float | None


#: Which share of a row's samples may be disturbed before the row is: one of five does not move a median.
_UNHARMED = 0.3


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured: its unit, whether more of it is better, and whether the columns took turns at it.

    Without turns one column may have had the better minute, and nothing is ranked.
    """

    unit: str
    more_is_better: bool
    in_turns: bool = True


#: Every measure, in the order of a report.
MEASURES: Mapping[str, Measure] = {
    "enqueue": Measure("tasks/s", True),
    "enqueue-bulk": Measure("tasks/s", True),
    "throughput": Measure("tasks/s", True),
    "throughput-10ms": Measure("tasks/s", True),
    "latency": Measure("ms", False),
    "queue-length-enqueue": Measure("tasks/s", True, in_turns=False),
    "queue-length-throughput": Measure("tasks/s", True, in_turns=False),
    "message-size": Measure("tasks/s", True),
    "memory": Measure("bytes", False),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `value` is none where there is none to give; `note` says why.

    `account` is the verdict on the tasks of this very measurement, `cpu` processor seconds by who spent
    them and `memory` bytes by who holds them; `spread` are all the values that `value` is the middle of.
    """

    value: float | None
    disturbed: bool = False
    account: Account | None = None
    cpu_per_1000: Numbers | None = None
    memory: Numbers | None = None
    spread: Sequence[float] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample belongs: a column under its guarantees, a measure, and its parameter if it has one."""

    column: str
    guarantees: str
    measure: str
    parameter: Parameter = None


@dataclass(frozen=True, slots=True)
class Row:
    """All samples of one place, and what they say. Numbers are of `unit`; the interval is of 95 %."""

    column: str
    guarantees: str
    measure: str
    parameter: Parameter
    unit: str
    samples: Sequence[float]
    median: float | None
    low: float | None
    high: float | None
    percentiles: Numbers | None
    account: Account | None
    cpu_seconds_per_1000: Numbers | None
    memory_bytes: Numbers | None
    disturbed: bool
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "samples": list(self.samples)}

    @property
    def rankable(self) -> bool:
        """Whether anything may be concluded: a spread is known, nobody disturbed it, no task was lost."""
        lost = bool(self.account and self.account["lost"])
        in_turns = MEASURES[self.measure].in_turns
        return self.low is not None and in_turns and not self.disturbed and not lost


def row_of(place: Place, samples: Sequence[Sample]) -> Row:
    """Return the row of the samples of a place."""
    values = [sample.value for sample in samples if sample.value is not None]
    found = estimate(values) if values else None
    spread = [value for sample in samples for value in sample.spread]
    return Row(
        column=place.column,
        guarantees=place.guarantees,
        measure=place.measure,
        parameter=place.parameter,
        unit=MEASURES[place.measure].unit,
        samples=values,
        median=found.median if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        percentiles=percentiles(spread) if spread else None,
        account=_all(sample.account for sample in samples),
        cpu_seconds_per_1000=_medians(sample.cpu_per_1000 for sample in samples),
        memory_bytes=_medians(sample.memory for sample in samples),
        disturbed=sum(sample.disturbed for sample in samples) > len(samples) * _UNHARMED,
        note="; ".join(dict.fromkeys(sample.note for sample in samples if sample.note)),
    )


def ranking(rows: Iterable[Row]) -> dict[str, dict[str, list[list[str]]]]:
    """Return measure (with its parameter) -> level of guarantees -> columns, best first, ties together.

    A row that nothing may be concluded from is left out, and so is a level with nobody to compare with.
    """
    by_measure: dict[str, dict[str, dict[str, Estimate]]] = {}
    for row in rows:
        if row.rankable and row.median is not None:
            name = row.measure if row.parameter is None else f"{row.measure} {row.parameter}"
            alike = by_measure.setdefault(name, {}).setdefault(row.guarantees, {})
            alike[row.column] = Estimate(row.median, row.low, row.high)
    found: dict[str, dict[str, list[list[str]]]] = {}
    for name, levels in by_measure.items():
        highest_first = MEASURES[name.partition(" ")[0]].more_is_better
        for level, estimates in levels.items():
            if len(estimates) > 1:
                found.setdefault(name, {})[level] = ranked(estimates, highest_first=highest_first)
    return found


def _all(accounts: Iterable[Account | None]) -> Account | None:
    """Return the sums; none where no sample has an account."""
    known = [account for account in accounts if account is not None]
    if not known:
        return None
    return {name: sum(account[name] for account in known) for name in known[0]}


def _medians(samples: Iterable[Numbers | None]) -> Numbers | None:
    """Return the median of each name; none where no sample has any."""
    known = [sample for sample in samples if sample]
    names = dict.fromkeys(name for sample in known for name in sample)
    return {
        name: statistics.median([sample[name] for sample in known if name in sample]) for name in names
    } or None
