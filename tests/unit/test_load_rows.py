"""Samples to rows to ranks; what disturbs a row; marks of tasks and their verdict."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from broker_profiles.comparison.column import Host, parse
from broker_profiles.comparison.load.plan import level, turns
from broker_profiles.comparison.load.probe import OTHERS, PATIENCE, SLOWER, Probe, Prober
from broker_profiles.comparison.load.rows import MEASURES, Place, Row, Sample, ranking, row_of
from broker_profiles.comparison.marks import Marker, Marks, ceiling, verdict
from broker_profiles.configuration import load

CLEAN = {"sent": 10, "lost": 0, "duplicated": 0}


def row(
    column: str, *values: float, level: str = "durable", measure: str = "throughput", lost: int = 0
) -> Row:
    samples = [Sample(value, account={**CLEAN, "lost": lost}) for value in values]
    return row_of(Place(column, level, measure), samples)


def test_a_row_sums_verdicts_and_takes_medians_of_costs() -> None:
    samples = [
        Sample(100.0, account=CLEAN, cpu_per_1000={"workers": 1.0, "broker": 2.0}, note="how"),
        Sample(300.0, account={**CLEAN, "lost": 1}, cpu_per_1000={"workers": 3.0}, note="how"),
        Sample(200.0, account=CLEAN, cpu_per_1000={"workers": 2.0}, memory={"workers": 7}, note="else"),
    ]
    found = row_of(Place("redis", "durable", "throughput"), samples)
    assert (found.median, found.unit) == (200.0, "tasks/s")
    assert found.account == {"sent": 30, "lost": 1, "duplicated": 0}
    assert found.cpu_seconds_per_1000 == {"workers": 2.0, "broker": 2.0}
    assert found.memory_bytes == {"workers": 7}
    assert found.note == "how; else"


def test_percentiles_are_of_all_rounds_together() -> None:
    samples = [Sample(1.0, spread=[1.0] * 98), Sample(5.0, spread=[5.0, 9.0])]
    found = row_of(Place("redis", "durable", "latency", 10), samples)
    assert found.percentiles == {"p50": 1.0, "p95": 1.0, "p99": 5.0, "max": 9.0}


def test_what_could_not_be_measured_is_a_row_with_its_reason() -> None:
    found = row_of(Place("redis", "durable", "latency", 10), [Sample(None, note="not tried")])
    assert (found.median, found.low, found.high, found.percentiles) == (None, None, None, None)
    assert found.note == "not tried"
    assert json.loads(json.dumps(found.as_json()))["samples"] == []


@pytest.mark.parametrize(
    ("disturbed", "of", "marked"), [(0, 5, False), (1, 5, False), (2, 5, True), (1, 2, True)]
)
def test_one_disturbed_round_of_five_does_not_disturb_the_row(disturbed: int, of: int, marked: bool) -> None:
    samples = [Sample(1.0, disturbed=number < disturbed) for number in range(of)]
    assert row_of(Place("redis", "durable", "enqueue"), samples).disturbed is marked


def test_only_equal_guarantees_are_ranked_against_each_other() -> None:
    rows = [
        row("slow", 10, 11),
        row("quick", 100, 101),
        row("stock-slow", 20, 21, level="stock"),
        row("stock-quick", 1000, 1001, level="stock"),
    ]
    assert ranking(rows) == {
        "throughput": {"durable": [["quick"], ["slow"]], "stock": [["stock-quick"], ["stock-slow"]]}
    }


def test_a_tie_is_said_as_a_tie() -> None:
    assert ranking([row("a", 10, 12), row("b", 11, 13), row("c", 1, 2)]) == {
        "throughput": {"durable": [["b", "a"], ["c"]]}
    }


def test_less_is_better_where_it_is() -> None:
    rows = [row("a", 5, 6, measure="latency"), row("b", 1, 2, measure="latency")]
    assert ranking(rows) == {"latency": {"durable": [["b"], ["a"]]}}


def test_each_parameter_is_ranked_by_itself() -> None:
    rows = [
        replace(row(name, *values), parameter=at)
        for name, values, at in (
            ("a", (5, 6), 100),
            ("b", (1, 2), 100),
            ("a", (1, 2), 1000),
            ("b", (5, 6), 1000),
        )
    ]
    assert ranking(rows) == {
        "throughput 100": {"durable": [["a"], ["b"]]},
        "throughput 1000": {"durable": [["b"], ["a"]]},
    }


def test_nothing_is_concluded_from_one_round_a_disturbed_row_lost_tasks_or_without_turns() -> None:
    rows = [
        row("once", 1000),
        row("loses", 1000, 1001, lost=1),
        replace(row("disturbed", 1000, 1001), disturbed=True),
        row("alone", 10, 11),
        row("a", 10, 11, measure="queue-length-enqueue"),
        row("b", 1, 2, measure="queue-length-enqueue"),
    ]
    assert ranking(rows) == {}


def test_every_measure_has_a_unit() -> None:
    assert all(measure.unit for measure in MEASURES.values())


# -- the probe ----------------------------------------------------------------------------------------


def prober(*probes: Probe) -> tuple[Prober, list[float]]:
    """Return a prober that sees one quiet second three times and then these, and its pauses."""
    coming = [*[Probe(1.0, 0.0)] * 3, *probes]
    pauses: list[float] = []
    return Prober(lambda _: coming.pop(0) if len(coming) > 1 else coming[0], pauses.append), pauses


def test_a_quiet_machine_is_not_waited_for() -> None:
    found, pauses = prober(Probe(1.0 * SLOWER, OTHERS))
    assert not found.disturbed(lambda: 0.0)
    assert pauses == []


@pytest.mark.parametrize("loud", [Probe(2.0, 0.0), Probe(1.0, 0.6)], ids=["slow", "used by others"])
def test_a_quiet_moment_is_waited_for(loud: Probe) -> None:
    found, pauses = prober(loud, loud, Probe(1.0, 0.0))
    assert not found.disturbed(lambda: 0.0)
    assert len(pauses) == 2


def test_a_machine_that_stays_loud_disturbs_and_is_not_waited_for_without_end() -> None:
    found, pauses = prober(Probe(2.0, 0.0))
    assert all(found.disturbed(lambda: 0.0) for _ in range(100))
    assert sum(pauses) == PATIENCE


# -- marks --------------------------------------------------------------------------------------------


def test_marks_come_back_as_runs(tmp_path: Path) -> None:
    marker, marks = Marker(tmp_path), Marks(tmp_path)
    marker.mark("a", 1.5)
    marks.update()
    marker.mark("b", 2.5)
    marker.mark("a", 3.5)
    marks.update()
    assert marks.runs == {"a": [1.5, 3.5], "b": [2.5]}
    assert marks.starts(["a", "c"]) == {"a": 1.5}


def test_a_forked_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    marker, marks = Marker(tmp_path), Marks(tmp_path)
    marker.mark("a", 1.0)
    child = os.fork()
    if not child:
        marker.mark("b", 2.0)
        os._exit(0)
    os.waitpid(child, 0)
    marks.update()
    assert set(marks.runs) == {"a", "b"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mark_that_was_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "1-a.marks").write_bytes(b"a 1.000000\nb 2.0")
    marks = Marks(tmp_path)
    marks.update()
    assert set(marks.runs) == {"a"}


def test_the_verdict_counts_what_was_lost_and_what_ran_again() -> None:
    runs = {"a": [1.0], "b": [1.0, 2.0], "else": [1.0]}
    assert verdict(["a", "b", "c"], runs) == {"sent": 3, "lost": 1, "duplicated": 1}


def test_the_ledger_knows_its_own_limit(tmp_path: Path) -> None:
    assert ceiling(tmp_path) > 0


def test_no_column_is_always_the_first() -> None:
    hosts = [Host(parse("embedded"), {}) for _ in range(3)]
    assert turns(hosts, 0) == hosts
    assert turns(hosts, 1) == [hosts[1], hosts[2], hosts[0]]
    assert {id(turns(hosts, number)[0]) for number in range(3)} == set(map(id, hosts))
    assert turns([], 1) == []


@pytest.mark.parametrize(
    ("profile", "version", "expected"),
    [
        ("redis", "", "durable"),
        ("rabbitmq", "4.0.5", "durable without ORD-1"),
        ("rabbitmq", "3.10.8", "durable without DEL-4, ORD-1"),
        ("stock-redis", "", "stock"),
    ],
)
def test_a_level_is_what_a_profile_goes_without(profile: str, version: str, expected: str) -> None:
    found = load(profile)
    assert level(found.mode, found.guarantees.on(version)) == expected
