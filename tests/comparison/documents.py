"""Results documents for the tests of the reports: made the way a run makes them, with awkward texts in it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from broker_profiles.comparison.account import account
from broker_profiles.comparison.column import Column, parse
from broker_profiles.comparison.ledger import Event, Kind
from broker_profiles.comparison.load.rows import Place, Row, Sample, ranking, row_of
from broker_profiles.comparison.report.data import Document, document
from broker_profiles.comparison.run import Attempt, Run
from broker_profiles.comparison.scenario import Case, Outcome
from broker_profiles.comparison.stage import Stage
from broker_profiles.profile import Setting

#: What nobody should have to escape by hand.
AWKWARD = "</script><script>alert(1)</script> \"quoted\" 'single' & Überfälle 🐇 \u202eright to left"
LONG_ID = "0f5c1d2e-" * 20 + "end"
PASSWORD = "s3cr3t-w0rd"

STARTED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

COLUMNS = (
    "embedded",
    "rabbitmq@rabbitmq:3-management",
    "redis@redis:7",
    "redis@registry.example.com/mirror/valkey/valkey-with-a-long-name:8.1.3-bookworm",
    "postgresql",
    "mongodb",
    "stock-rabbitmq",
    "stock-redis",
)

#: What a cell ends in: column -> promise -> outcomes of its cases. What is not named here is kept.
ENDS: Mapping[str, Mapping[str, Sequence[Outcome]]] = {
    "embedded": {"DEL-7": [Outcome.NOT_APPLICABLE]},
    "rabbitmq@rabbitmq:3-management": {"ORD-1": [Outcome.BROKEN]},
    "redis@redis:7": {"DEL-2": [Outcome.KEPT, Outcome.BROKEN], "ETA-1": [Outcome.ERROR]},
    "stock-rabbitmq": {key: [Outcome.BROKEN] for key in ("DEL-1", "DEL-3", "DEL-4", "ETA-2")},
    "stock-redis": {key: [Outcome.BROKEN] for key in ("DEL-1", "DEL-2", "DEL-4", "ETA-1", "ORD-1")},
}

#: Promise -> the titles of its cases.
CASES: Mapping[str, Sequence[str]] = {
    "DEL-1": ["the whole worker is killed in the middle of a task", "a process of the pool is killed"],
    "DEL-2": ["the broker is killed under load", f"it is killed twice; {AWKWARD}"],
    "DEL-3": ["the broker is full"],
    "DEL-4": ["a task longer than any timeout"],
    "DEL-8": ["a message that cannot be read"],
    "DEL-7": ["the network is away for a minute"],
    "ETA-1": ["a countdown over a restart"],
    "ETA-2": ["a hundred thousand delayed tasks"],
    "ORD-1": ["9 before 0"],
    "RES-3": ["a result expires without beat"],
    "BEAT-1": ["two beats"],
}

#: The one that no server could be had for.
AWAY = "mongodb"


def run() -> Run:
    """Return a run that has ended: several columns, every standing, and what is awkward to show."""
    columns = [parse(name) for name in COLUMNS]
    made = Run(columns, list(_cases()), jobs=2, environ={})
    for column in columns:
        if column.name == AWAY:
            made.unavailable[AWAY] = f"no image mongo:8, no program mongod <b>{AWKWARD}</b>"
            continue
        made.servers[column.name] = _servers(column)
        made.settings[column.name] = _settings(column)
        for promise in CASES:
            ends = ENDS.get(column.name, {}).get(promise, [])
            for number, case in enumerate(case for case in made.cases if case.guarantee == promise):
                outcome = ends[number] if number < len(ends) else Outcome.KEPT
                made.attempts.append(attempt(column.name, case, outcome))
    return made


def whole() -> Document:
    """Return the document of `run()` with measurements."""
    return copy.deepcopy(_whole())


@functools.cache
def _whole() -> Document:
    rows = load_rows()
    return document(
        run(),
        STARTED,
        STARTED + timedelta(minutes=42, seconds=7),
        True,
        [row.as_json() for row in rows],
        ranking(rows),
    )


def small(**standings: str) -> Document:
    """Return a document of one column and these promises: `small(DEL_1="holds")`."""
    made = whole()
    cells = [
        {
            "column": "embedded",
            "promise": name.replace("_", "-"),
            "standing": said,
            "cases": [],
            "not_run": [],
        }
        for name, said in standings.items()
    ]
    columns = [column for column in made["columns"] if column["name"] == "embedded"]
    return {**made, "columns": columns, "cells": cells, "load": [], "ranking": {}}


def _cases() -> Iterable[Case]:
    for promise, titles in CASES.items():
        for number, title in enumerate(titles, 1):
            yield Case(promise, title, f"case_{number}", _unused, quick=number == 1, fresh=False)


def _unused(_stage: Stage) -> None:
    raise AssertionError("no case runs here")


def attempt(column: str, case: Case, outcome: Outcome) -> Attempt:
    """Return an attempt with a ledger that fits its outcome."""
    events = list(_events(lost=outcome is Outcome.BROKEN))
    bad = outcome in (Outcome.BROKEN, Outcome.ERROR)
    return Attempt(
        column=column,
        case=case,
        outcome=outcome,
        detail=_DETAILS[outcome],
        seconds=21.5,
        facts={"seconds from the kill to the second run": 15.2 + len(column) / 10, "text": AWKWARD},
        account=account(events),
        events=events,
        alone=bad and case.name == "case_2",
        logs={"worker-1": f"[ERROR] amqp://celery:***@localhost\n{AWKWARD}\n" + "x" * 500} if bad else {},
        late=outcome is Outcome.BROKEN and case.guarantee == "DEL-4",
        bounds={"seconds from the kill to the second run": 30.0},
    )


_DETAILS = {
    Outcome.KEPT: "",
    Outcome.BROKEN: f"1 of 60 tasks have no finish in the ledger after 30 s: {LONG_ID} {AWKWARD}",
    Outcome.NOT_APPLICABLE: "a file has no network before it",
    Outcome.ERROR: "WorkerEnded: worker w1@host ended: Traceback (most recent call last) (workers.py:104)",
}


def _events(*, lost: bool) -> Iterable[Event]:
    """Sixty tasks over a broker that is killed; the one with the long id is lost or recovered."""
    ids = [LONG_ID, *(f"task-{number:04}" for number in range(59))]
    yield _event("ready", "w1@bp-1a2b3c4d", 1000.0)
    for number, id_ in enumerate(ids):
        yield _event("sending", id_, 1001 + number * 0.05)
        yield _event("sent", id_, 1001.02 + number * 0.05)
    yield _event("start", LONG_ID, 1001.5)
    yield _event("fault", "", 1002.0, f"broker SIGKILL {AWKWARD}")
    yield _event("fault", "", 1005.0, "broker back")
    for number, id_ in enumerate(ids[1:]):
        yield _event("start", id_, 1006 + number * 0.2)
        yield _event("finish", id_, 1006.1 + number * 0.2)
    if lost:
        yield _event("finish", ids[3], 1031.0)
    else:
        yield _event("start", LONG_ID, 1030.0, again=True)
        yield _event("finish", LONG_ID, 1031.0)


def _event(kind: Kind, id_: str, time: float, text: str = "", again: bool = False) -> Event:
    return Event(kind, id_, time, 4711, text, again)


def _servers(column: Column) -> list[dict[str, str]]:
    system = column.system(column.profile.broker)
    if system is None:
        return []
    return [
        {
            "system": system,
            "version": "7.4.2",
            "how": "container",
            "origin": f"container {column.image or system}",
            "digest": "sha256:" + "0123456789abcdef" * 4,
        }
    ]


def _settings(column: Column) -> list[Setting]:
    return [
        Setting("broker_url", f"redis://user:{PASSWORD}@127.0.0.1:24001/0", "where it is", "REDIS_URL"),
        Setting("task_acks_late", True, "a message is acknowledged when its task has ended", "broker"),
        Setting("awkward_" * 8, {"key": AWKWARD}, AWKWARD, "results"),
    ]


# -- measurements -------------------------------------------------------------------------------------


def load_rows() -> list[Row]:
    """Return rows of every kind of measure: bars, percentiles, lines, ones without a value."""
    found: list[Row] = []
    for number, name in enumerate(COLUMNS):
        if name == AWAY:
            continue
        level = "stock" if name.startswith("stock") else "durable"
        speed = 5000.0 / (number + 1)
        found += [row_of(place, samples) for place, samples in _measured(name, level, number, speed)]
    return found


def _measured(name: str, level: str, number: int, speed: float) -> Iterable[tuple[Place, list[Sample]]]:
    def rate(value: float, **more: Any) -> list[Sample]:
        return [
            Sample(value * (0.97 + 0.01 * turn), account={"sent": 2000, "lost": 0, "duplicated": 0}, **more)
            for turn in range(5)
        ]

    yield Place(name, level, "enqueue"), rate(speed, cpu_per_1000={"client": 0.21, "server": 0.05})
    yield Place(name, level, "throughput"), rate(speed * 1.7, disturbed=number == 2, note="2 processes")
    for tasks in (10.0, 100.0):
        missing = number == 1 and tasks > 10
        spread = [] if missing else [0.8 * (number + 1) * 1.06**step for step in range(100)]
        note = "not tried: too near to the 90/s that it can do" if missing else ""
        value = None if missing else spread[50]
        yield Place(name, level, "latency", tasks), [Sample(value, spread=spread, note=note)] * 5
    for waiting in (1_000, 100_000, 1_000_000):
        slower = 1 + waiting / 50_000 if level == "stock" else 1
        yield Place(name, level, "queue-length-throughput", waiting), rate(speed / slower)
    for size in (100, 1_000, 10_000, 100_000, 1_000_000):
        yield Place(name, level, "message-size", size), rate(speed / (1 + size / 20_000))
    for who in ("worker", "broker"):
        yield Place(name, level, "memory", who), rate(3.1e7 * (number + 1))
