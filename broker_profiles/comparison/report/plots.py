"""What is drawn: rows of bars or of percentiles on one scale, and the times of recovery as such rows.

Pure functions of the document. A place on a scale is a percentage of its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker_profiles.comparison.report.words import count, figure, seconds

Document = Mapping[str, Any]

#: How a fact is called that is a time of recovery.
_RECOVERY = "seconds "


@dataclass(frozen=True, slots=True)
class Row:
    """One column's value: where its mark is, and what stands beside it."""

    column: str
    value: float | None
    text: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    place: float = 0.0
    low: float | None = None
    high: float | None = None
    #: Percentile -> place, for rows of a distribution.
    points: tuple[tuple[str, float], ...] = ()
    disturbed: bool = False
    #: Its place among those of its level, `2=` where another shares it; empty where nothing can be concluded.
    rank: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows on one scale, which begins at 0 unless `spread` says that it is logarithmic."""

    title: str
    subtitle: str
    rows: Sequence[Row]
    ticks: Sequence[tuple[float, str]] = ()
    bound: float | None = None
    bound_text: str = ""
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """The times that the cases of a promise measured, and what they amount to in a few words."""

    promise: str
    wording: str
    summary: str
    panels: Sequence[Panel]


def recoveries(document: Document) -> list[Recovery]:
    """Return, for each promise, a panel for each time that a case measured: one row a column."""
    found: dict[str, dict[tuple[str, str], list[tuple[str, float, float | None]]]] = {}
    titles: dict[str, str] = {}
    for cell, case, name, value in _times(document["cells"]):
        titles[case["id"]] = case["title"]
        row = (cell["column"], value, case["bounds"].get(name))
        found.setdefault(cell["promise"], {}).setdefault((case["id"], name), []).append(row)
    return [
        Recovery(
            promise,
            document["promises"][promise],
            _summary([value for rows in times.values() for _, value, _ in rows], len(times)),
            [_panel(id_, titles[id_], name, rows) for (id_, name), rows in times.items()],
        )
        for promise, times in found.items()
    ]


def _times(cells: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Any, Any, str, float]]:
    for cell in cells:
        for case in cell["cases"]:
            for name, value in case["facts"].items():
                if name.startswith(_RECOVERY) and is_number(value):
                    yield cell, case, name, value


def _summary(values: Sequence[float], times: int) -> str:
    return f"{count(times, 'measured time')}, from {seconds(min(values))} to {seconds(max(values))}"


def _panel(id_: str, title: str, name: str, rows: Sequence[tuple[str, float, float | None]]) -> Panel:
    bound = max((bound for _, _, bound in rows if bound is not None), default=None)
    top = max([value for _, value, _ in rows] + ([bound] if bound else [])) or 1.0
    return Panel(
        title=f"{id_}: {name}",
        subtitle=title,
        rows=[Row(column, value, seconds(value), place=share(value, top)) for column, value, _ in rows],
        bound=None if bound is None else share(bound, top),
        bound_text="" if bound is None else f"promised: within {figure(bound)} s",
    )


def is_number(value: Any) -> bool:
    """Whether a value of a document is a number, which a truth value is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def share(value: float | None, top: float) -> float:
    """Return where a value is on a scale from 0, in percent."""
    return round(100 * max(0.0, value or 0.0) / top, 2)
