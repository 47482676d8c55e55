"""From the rows of `comparison.load` to panels of bars and of percentiles, and to small line charts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from broker_profiles.comparison.report import charts
from broker_profiles.comparison.report.plots import Document, Panel, Row, is_number, share
from broker_profiles.comparison.report.words import figure, seconds, size

Measurement = Mapping[str, Any]
Ranks = Mapping[tuple[str, str, str], str]

#: What the measures of `comparison.load` are called on the page, and their parameters.
_TITLES = {
    "enqueue": "Sending, one by one with delay()",
    "enqueue-bulk": "Sending in bulk",
    "throughput": "Working off tasks that do nothing",
    "throughput-10ms": "Working off tasks of 10 ms",
    "latency": "Latency: from when a task ought to have been sent to its start",
    "queue-length-enqueue": "Sending, against the length of the queue",
    "queue-length-throughput": "Working off, against the length of the queue",
    "message-size": "Sending and working off, against the size of the message",
    "memory": "Memory after all that",
}
_PARAMETERS = {
    "latency": "{} tasks a second",
    "queue-length-enqueue": "{} waiting",
    "queue-length-throughput": "{} waiting",
    "message-size": "{} bytes",
    "memory": "of the {}",
}
_IN_SECONDS = {"s": 1.0, "seconds": 1.0, "ms": 0.001}

#: How many parameters make a line; from which ratio of values an axis is logarithmic.
_LINE, _WIDE = 3, 50.0


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart of one column."""

    column: str
    title: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Measure:
    """Everything measured under one name: panels and charts, and the rows as they are in the document."""

    name: str
    title: str
    panels: Sequence[Panel]
    charts: Sequence[Chart]
    axes: str
    rows: Sequence[Measurement]


def measures(document: Document) -> list[Measure]:
    """Return what was measured, by name, in the order of the document."""
    order = {column["name"]: place for place, column in enumerate(document["columns"])}
    rows = sorted(document["load"], key=lambda row: order.get(row["column"], len(order)))
    return [
        _measure(name, [row for row in rows if row["measure"] == name], _ranks(document["ranking"], name))
        for name in dict.fromkeys(row["measure"] for row in document["load"])
    ]


def _measure(name: str, rows: Sequence[Measurement], ranks: Ranks) -> Measure:
    drawn = [row for row in rows if row["median"] is not None]
    title = _TITLES.get(name, name)
    if _is_series(drawn):
        lines, axes = _lines(drawn)
        return Measure(name, title, (), lines, axes, rows)
    panels = _spreads(rows, ranks) if any(map(_percentiles, drawn)) else _bars(rows, ranks)
    return Measure(name, title, panels, (), "", rows)


def _bars(rows: Sequence[Measurement], ranks: Ranks) -> list[Panel]:
    """Return panels of bars; those of one parameter have one scale, for eyes compare what is side by side."""
    panels = []
    for (level, parameter), group in _by(rows, "guarantees", "parameter").items():
        beside = [row for row in rows if row["parameter"] == parameter]
        top = max(row["high"] or row["median"] or 0.0 for row in beside) or 1.0
        panels.append(_panel(level, parameter, group, [_bar(row, top, ranks) for row in group]))
    return panels


def _bar(row: Measurement, top: float, ranks: Ranks) -> Row:
    value = row["median"]
    return _row(
        row,
        ranks,
        place=share(value, top),
        low=None if row["low"] is None else share(row["low"], top),
        high=None if row["high"] is None else share(row["high"], top),
        text="not measured" if value is None else with_unit(value, row["unit"]),
    )


def _spreads(rows: Sequence[Measurement], ranks: Ranks) -> list[Panel]:
    """Return panels of percentiles on one logarithmic scale, for all of them the same."""
    values = [value for row in rows for _, value in _percentiles(row) if value > 0]
    if not values:
        return _bars(rows, ranks)
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return 100 * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    unit = rows[0]["unit"]
    ticks = [(round(place(10.0**power), 2), _tick(10.0**power, unit)) for power in range(low, high + 1)]
    return [
        _panel(level, parameter, group, [_spread(row, place, ranks) for row in group], ticks)
        for (level, parameter), group in _by(rows, "guarantees", "parameter").items()
    ]


def _spread(row: Measurement, place: Callable[[float], float], ranks: Ranks) -> Row:
    found = _percentiles(row)
    text = ", ".join(f"{name} {with_unit(value, row['unit'])}" for name, value in found)
    points = tuple((name, round(place(value), 2)) for name, value in found)
    return _row(row, ranks, points=points, text=text or "not measured")


def _lines(rows: Sequence[Measurement]) -> tuple[list[Chart], str]:
    """Return a small chart for each column, all with the same axes, and what the axes are."""
    highest = max(row["high"] or row["median"] for row in rows)
    lowest = min(row["low"] or row["median"] for row in rows)
    bottom = None
    if lowest > 0 and highest / lowest > _WIDE:
        bottom = 10.0 ** math.floor(math.log10(lowest))
        highest = 10.0 ** math.ceil(math.log10(highest))
    places = _in_order(row["parameter"] for row in rows)
    found = []
    for (column, level), group in _by(rows, "column", "guarantees").items():
        at = {row["parameter"]: row for row in group}
        svg = charts.line_chart(
            [charts.short(place) for place in places],
            *([at[place][name] if place in at else None for place in places] for name in charts.DRAWN),
            top=highest,
            bottom=bottom,
        )
        found.append(Chart(column, f"{column}, {level}" if level else column, svg))
    return found, f"{rows[0]['unit']}{', on a logarithmic axis' if bottom else ''}"


def _panel(
    level: Any,
    parameter: Any,
    group: Sequence[Measurement],
    rows: Sequence[Row],
    ticks: Sequence[tuple[float, str]] = (),
) -> Panel:
    at = _parameter(group[0]["measure"], parameter)
    title = ", ".join(filter(None, [f"guarantees: {level}" if level else "", at]))
    # What is said of every row is said once.
    shared = [note for note in rows[0].notes if all(note in row.notes for row in rows)]
    rows = [replace(row, notes=tuple(note for note in row.notes if note not in shared)) for row in rows]
    return Panel(title, "; ".join(shared), rows, ticks, spread=bool(ticks))


def _row(row: Measurement, ranks: Ranks, **shown: Any) -> Row:
    column, disturbed = row["column"], bool(row.get("disturbed"))
    lost = (row.get("account") or {}).get("lost")
    warnings = (f"{figure(lost)} lost" if lost else "", "disturbed machine" if disturbed else "")
    return Row(
        column,
        row["median"],
        notes=tuple(filter(None, (row.get("note") or "").split("; "))),
        warnings=tuple(filter(None, warnings)),
        disturbed=disturbed,
        rank=ranks.get((str(row["parameter"]), row["guarantees"], column), ""),
        **shown,
    )


def _ranks(ranking: Mapping[str, Any], measure: str) -> Ranks:
    """Return (parameter as text, level, column) -> place, those that share one with a sign of equality."""
    found: dict[tuple[str, str, str], str] = {}
    for name, levels in ranking.items():
        of, _, parameter = name.partition(" ")
        for level, groups in levels.items() if of == measure else ():
            place = 1
            for group in groups:
                for column in group:
                    found[parameter or "None", level, column] = f"{place}{'=' if len(group) > 1 else '.'}"
                place += len(group)
    return found


def _by(rows: Iterable[Measurement], *names: str) -> dict[tuple[Any, ...], list[Measurement]]:
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _is_series(rows: Sequence[Measurement]) -> bool:
    """Whether the parameters are amounts, and some column has enough of them for a line."""
    if any(map(_percentiles, rows)) or not all(
        is_number(row["parameter"]) or str(row["parameter"])[:1].isdigit() for row in rows
    ):
        return False
    return any(len(group) >= _LINE for group in _by(rows, "column", "guarantees").values())


def _in_order(parameters: Iterable[Any]) -> list[Any]:
    found = list(dict.fromkeys(parameters))
    return sorted(found) if all(map(is_number, found)) else found


def _percentiles(row: Measurement) -> list[tuple[str, float]]:
    """Return name -> value, from the lowest percentile to the highest."""
    found = row.get("percentiles") or {}
    named = [(name, value) for name, value in found.items() if is_number(value)]
    return [(_percentile(name), value) for name, value in sorted(named, key=lambda one: one[1])]


def _percentile(name: str) -> str:
    number = re.fullmatch(r"p?(\d+(?:\.\d+)?)", name)
    if number is None:
        return name
    return {"50": "median", "100": "max"}.get(number[1], f"{number[1]} %")


def _parameter(measure: str, parameter: Any) -> str:
    if parameter is None:
        return ""
    return _PARAMETERS.get(measure, "{}").format(figure(parameter))


def _tick(value: float, unit: str) -> str:
    if unit not in _IN_SECONDS:
        return with_unit(value, unit)
    time = round(value * _IN_SECONDS[unit], 9)
    return f"{time:g} s" if time >= 1 else f"{time * 1000:g} ms"


def with_unit(value: float, unit: str) -> str:
    """Return a value as people say it: `12.5 ms`, `3.4 MiB`, `1,234 tasks/s`."""
    if unit in _IN_SECONDS:
        return seconds(value * _IN_SECONDS[unit])
    return size(value) if unit == "bytes" else f"{figure(value)} {unit}"
