"""Real measurements, small: that they are whole, that their verdicts are right, that nothing is left.

How fast anything was decides no test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker_profiles.comparison.column import Host, hosted, parse
from broker_profiles.comparison.load import Depth, Row, measure_columns, probe, ranking, sending
from broker_profiles.comparison.load.bench import Bench
from broker_profiles.comparison.load.measure import Size
from broker_profiles.comparison.load.probe import Prober
from broker_profiles.comparison.load.rows import MEASURES
from broker_profiles.comparison.marks import verdict
from broker_profiles.comparison.servers import Server

SMALL = Depth(
    rounds=1,
    size=Size(
        tasks=100,
        send_seconds=5.0,
        work_seconds=5.0,
        slow_tasks=20,
        rates=(20.0, 1e6),
        rate_seconds=0.5,
        sizes={100: 10, 100_000: 10},
    ),
    lengths={300: 30.0, 10_000_000: 1.0},
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no quiet moment: no number is looked at."""
    monkeypatch.setattr(probe, "PATIENCE", 0.0)


def measured(column: str, depth: str | Depth) -> list[Row]:
    done: list[Row] = []
    rows = measure_columns([parse(column)], os.environ, depth, row_done=done.append)
    assert done == rows
    return rows


def test_a_measurement_is_whole_and_no_task_was_lost() -> None:
    before = len(psutil.Process().children(recursive=True))
    rows = measured("embedded", SMALL)
    assert {row.measure for row in rows} == set(MEASURES)
    by_place = {(row.measure, row.parameter): row for row in rows}
    without = {place for place, row in by_place.items() if row.median is None}
    # A rate that no broker carries, and a length that is not reached in a second.
    assert without == {
        ("latency", 1e6),
        ("queue-length-enqueue", 10_000_000),
        ("queue-length-throughput", 10_000_000),
    }
    assert all(by_place[place].note for place in without)
    for row in rows:
        assert row.account is None or (row.account["lost"], row.account["duplicated"]) == (0, 0)
        assert row.guarantees == "durable"
        assert json.loads(json.dumps(row.as_json())) == row.as_json()
    work = by_place["throughput", None]
    assert work.account == {"sent": 200, "lost": 0, "duplicated": 0}  # one by one and in bulk
    assert set(work.cpu_seconds_per_1000 or ()) == {"workers", "client"}  # a file has no process
    assert set(work.memory_bytes or ()) == {"workers"}
    assert list(by_place["latency", 20.0].percentiles or ()) == ["p50", "p95", "p99", "max"]
    assert len(by_place["queue-length-throughput", 300].samples) > 1
    assert ranking(rows) == {}  # nobody to compare with
    assert len(psutil.Process().children(recursive=True)) == before


def test_a_measurement_can_be_ended() -> None:
    said: list[str] = []
    rows = measure_columns(
        [parse("embedded")], os.environ, SMALL, say=said.append, cancelled=lambda: len(said) > 1
    )
    assert rows == []
    assert said[1] == "round 1 of 1: embedded"


def purge(app: Any) -> int:
    """Throw away what waits; runs in the client."""
    purged: int = app.control.purge()
    return purged


def test_tasks_that_never_run_are_in_the_verdict(tmp_path: Path) -> None:
    with hosted(parse("embedded")) as host, Bench(host, tmp_path, Prober(), lambda: False) as bench:
        with bench.idle_pool():
            ids = bench.send(sending.one_by_one, 50, 10.0, seconds=10.0)["ids"]
            purged = bench.send(purge, seconds=10.0)
        assert purged > 0
        # What was given to the pool before the rest was thrown away does run.
        assert bench.wait(lambda: len(bench.marks.runs) == len(ids) - purged, 30.0)
        worked = bench.work(ids, 0.0, {})
        found = verdict(ids, bench.marks.runs)
    assert worked.missing == purged
    assert found == {"sent": 50, "lost": purged, "duplicated": 0}


@pytest.mark.server("redis")
def test_of_a_server_of_ours_memory_and_processor_time_are_known(server: Callable[[str], Server]) -> None:
    redis = server("redis")
    if not redis.owned:
        pytest.skip("a server of somebody else is not looked into")
    before, memory = redis.cpu_seconds(), redis.memory()
    if before is None:
        pytest.skip("the container engine has a kernel of its own")
    assert before > 0
    assert memory is not None and memory > 1_000_000
    redis.wait_ready()
    assert (redis.cpu_seconds() or 0) >= before


def test_servers_rest_while_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: a column whose server can be frozen, and one without.
    host = Host(parse("redis"))
    monkeypatch.setattr("broker_profiles.comparison.load.plan.Host", lambda *_: host)
    states: list[str] = []

    def say(text: str) -> None:
        states.extend(f"{text}: {one.state}" for one in host.servers.values())

    measure_columns([parse("redis")], os.environ, SMALL, say=say, cancelled=lambda: bool(states))
    if not states:
        pytest.skip("no redis server")
    assert states == ["round 1 of 1: redis: paused"]
    assert not host.servers


@pytest.mark.slow
@pytest.mark.parametrize("column", ["embedded", "redis", "rabbitmq", "stock-redis"])
def test_a_quick_measurement(column: str) -> None:
    rows = measured(column, "quick")
    assert {row.measure for row in rows} == set(MEASURES)
    assert all(row.account is None or not row.account["lost"] for row in rows)
