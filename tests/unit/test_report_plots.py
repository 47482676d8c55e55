"""What is drawn: places on scales, which are pure functions of the document."""

from __future__ import annotations

from typing import Any

import pytest

from broker_profiles.comparison.report import charts, words
from broker_profiles.comparison.report.measures import Measure, measures, with_unit
from broker_profiles.comparison.report.plots import recoveries
from tests.comparison.documents import COLUMNS, whole


@pytest.fixture(scope="module")
def document() -> Any:
    return whole()


def measure(document: Any, name: str) -> Measure:
    (found,) = [one for one in measures(document) if one.name == name]
    return found


def test_a_time_of_recovery_is_drawn_against_its_bound(document: Any) -> None:
    recovery = recoveries(document)[0]
    assert recovery.promise == "DEL-1"
    assert recovery.summary == "2 measured times, from 16.0 s to 23.1 s"
    panel = recovery.panels[0]
    assert panel.title == "DEL-1/case_1: seconds from the kill to the second run"
    assert (panel.bound, panel.bound_text) == (100.0, "promised: within 30 s")
    row = panel.rows[0]
    assert (row.column, row.text, row.place) == ("embedded", "16.0 s", 53.33)


def test_a_time_over_its_bound_makes_the_scale_longer(document: Any) -> None:
    case = next(case for cell in document["cells"] for case in cell["cases"])
    late = {**case, "facts": {"seconds to anything": 60.0}, "bounds": {"seconds to anything": 30.0}}
    cell = {**document["cells"][0], "cases": [late]}
    panel = recoveries({**document, "cells": [cell]})[0].panels[0]
    assert (panel.bound, panel.rows[0].place) == (50.0, 100.0)


def test_bars_of_one_parameter_have_one_scale_over_all_guarantees(document: Any) -> None:
    durable, stock = measure(document, "enqueue").panels
    assert (durable.title, stock.title) == ("guarantees: durable", "guarantees: stock")
    highest = max(row.high or 0 for row in durable.rows)
    assert highest == 100.0
    assert stock.rows[0].place < 20
    assert durable.rows[0].text == "4,950 tasks/s"


def test_places_are_shared_where_nobody_can_tell(document: Any) -> None:
    ranking = {"enqueue": {"durable": [["embedded"], ["redis@redis:7", "postgresql"]]}}
    panel = measure({**document, "ranking": ranking}, "enqueue").panels[0]
    assert {row.column: row.rank for row in panel.rows if row.rank} == {
        "embedded": "1.",
        "redis@redis:7": "2=",
        "postgresql": "2=",
    }


def test_a_disturbed_row_says_so_and_what_all_rows_say_is_said_once(document: Any) -> None:
    panel = measure(document, "throughput").panels[0]
    assert panel.subtitle == "2 processes"
    assert {row.column: row.warnings for row in panel.rows if row.warnings} == {
        "redis@redis:7": ("disturbed machine",)
    }
    assert not any(row.notes for row in panel.rows)


def test_percentiles_are_on_one_logarithmic_scale(document: Any) -> None:
    panels = measure(document, "latency").panels
    assert all(panel.ticks == panels[0].ticks for panel in panels)
    assert panels[0].ticks[0][0] == 0.0
    assert panels[0].ticks[-1][0] == 100.0
    row = panels[0].rows[0]
    assert [name for name, _ in row.points] == ["median", "95 %", "99 %", "max"]
    places = [place for _, place in row.points]
    assert places == sorted(places)


def test_what_was_not_measured_says_why(document: Any) -> None:
    panel = measure(document, "latency").panels[1]
    row = panel.rows[1]
    assert (row.value, row.text) == (None, "not measured")
    assert row.notes == ("not tried: too near to the 90/s that it can do",)


def test_amounts_are_lines_with_one_scale(document: Any) -> None:
    found = measure(document, "queue-length-throughput")
    assert [chart.column for chart in found.charts] == [name for name in COLUMNS if name != "mongodb"]
    assert found.axes == "tasks/s, on a logarithmic axis"
    svg = str(found.charts[-1].svg)
    assert svg.startswith("<svg")
    for unwanted in ("<style", "<script", "http://www.pygal", "<!--", "id="):
        assert unwanted not in svg


def test_every_measure_is_shown_without_a_measurement_too(document: Any) -> None:
    rows = [
        {**row, "median": None, "low": None, "high": None, "percentiles": None} for row in document["load"]
    ]
    for found in measures({**document, "load": rows, "ranking": {}}):
        assert {row.text for panel in found.panels for row in panel.rows} == {"not measured"}


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (12.5, "ms", "12.5 ms"),
        (1500, "ms", "1.50 s"),
        (3.5e6, "bytes", "3.34 MiB"),
        (1234.5, "tasks/s", "1,234 tasks/s"),
    ],
)
def test_values_with_their_units(value: float, unit: str, said: str) -> None:
    assert with_unit(value, unit) == said


def test_numbers_in_words() -> None:
    assert [words.figure(value) for value in (0, 12345, 0.00001234, 3.14159, True, "x")] == [
        "0",
        "12,345",
        "0.00001234",
        "3.142",
        "True",
        "x",
    ]
    assert [words.seconds(value) for value in (0, 0.0032, 0.35, 5.0, 15.0, 2280)] == [
        "0.00 s",
        "3.2 ms",
        "350 ms",
        "5.00 s",
        "15.0 s",
        "38 min",
    ]
    assert [charts.short(value) for value in (1_000_000, 1500, 12, "far")] == ["1M", "1.5k", "12", "far"]
