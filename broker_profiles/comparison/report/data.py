"""The results document: everything that a run found, as JSON can hold it. `results.schema.json` is its form.

The other reports are made from the document alone, so that an old one can be shown and compared with.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from broker_profiles.comparison.account import Account, Ids
from broker_profiles.comparison.column import Column
from broker_profiles.comparison.ledger import Event
from broker_profiles.comparison.matrix import Standing, standing
from broker_profiles.comparison.report import environment
from broker_profiles.comparison.run import Attempt, Run
from broker_profiles.comparison.scenario import Case, all_cases
from broker_profiles.errors import ConfigurationError, redact
from broker_profiles.profile import CONTRACT, Guarantees, Setting

Document = dict[str, Any]

#: Goes up with every change that a reader of older documents could not read.
SCHEMA = 1

#: How many ids of a set are listed; the count beside them is of all.
IDS_SHOWN = 20

#: How many events of a case are listed, and how many at most where those that matter are more.
EVENTS_SHOWN = 150
EVENTS_AT_MOST = 400

_ALWAYS_SHOWN = ("fault", "note", "ready")

_SETS = ("lost", "duplicated", "recovered", "unexpected", "unsure", "set_aside", "withdrawn")

#: What a promise amounts to only when all of its cases were tried.
_KEPT = (Standing.HOLDS, Standing.SEEN_KEPT, Standing.UNDECLARED)


class NotResults(ConfigurationError):
    """{path!r} is no results.json of `broker-profiles compare`: {problem}. Name one that it wrote."""


class OtherSchema(ConfigurationError):
    """{path!r} is results.json of schema {found}, and this version reads {known}. Use the version that wrote it, or repeat the run."""  # noqa: E501 - a message of one line


def document(
    run: Run,
    started: datetime,
    finished: datetime,
    complete: bool,
    load: Sequence[Mapping[str, Any]] = (),
    ranking: Mapping[str, Any] = MappingProxyType({}),
) -> Document:
    """Return the document of a run. Times are aware.

    `load` are rows of `comparison.load` as JSON holds them, `ranking` what it concludes from them.
    """
    promises = [id_ for id_ in CONTRACT if any(case.guarantee == id_ for case in run.cases)]
    return {
        "schema": SCHEMA,
        "started": _time(started),
        "finished": _time(finished),
        "complete": complete,
        "versions": environment.versions(column.profile for column in run.columns),
        "machine": environment.machine(),
        "commit": environment.commit(),
        "selection": {"cases": len(run.cases), "known": max(len(all_cases()), len(run.cases))},
        "promises": dict(CONTRACT),
        "columns": [_column(run, column) for column in run.columns],
        "cells": [_cell(run, column, promise) for promise in promises for column in run.columns],
        "load": [_plain(row) for row in load],
        "ranking": _plain(ranking),
    }


def repeat_command(column: str, case: str) -> str:
    """Return the command that repeats one case on one column."""
    return f"broker-profiles compare --profiles {shlex.quote(column)} --scenarios {shlex.quote(case)}"


def save(document: Document, path: Path) -> None:
    """Write a document. Raises `OSError`."""
    # Without indentation: events are many, and take twice the room with it.
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="replace")


def load(path: Path) -> Document:
    """Return the document in a file. Raises `NotResults`, or `OtherSchema` for one of another version."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise NotResults(path=str(path), problem=error.strerror or "it cannot be read") from None
    except ValueError:
        raise NotResults(path=str(path), problem="it is not JSON") from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise NotResults(path=str(path), problem="it does not say which schema it has")
    if schema != SCHEMA:
        raise OtherSchema(path=str(path), found=schema, known=SCHEMA)
    problem = _problem(found)
    if problem:
        raise NotResults(path=str(path), problem=problem)
    return dict(found)


# -- the parts ----------------------------------------------------------------------------------------


def _column(run: Run, column: Column) -> dict[str, Any]:
    profile, guarantees = column.profile, _guarantees(run, column)
    return {
        "name": column.name,
        "profile": profile.name,
        "title": f"{profile.broker.title}; results: {profile.results.title}",
        "baseline": column.baseline,
        "servers": run.servers.get(column.name, []),
        "settings": [_setting(setting) for setting in run.settings.get(column.name, [])],
        "declared": [id_ for id_ in CONTRACT if guarantees.holds(id_)],
        "not_offered": {id_: guarantees.reason(id_) for id_ in CONTRACT if not guarantees.holds(id_)},
        "priority_levels": guarantees.priority_levels,
        "unavailable": run.unavailable.get(column.name),
    }


def _guarantees(run: Run, column: Column) -> Guarantees:
    return run.guarantees.get(column.name, column.profile.guarantees)


def _setting(setting: Setting) -> dict[str, str]:
    return {
        "name": setting.name,
        "value": setting.shown(),
        "source": setting.source,
        "reason": setting.reason,
    }


def _cell(run: Run, column: Column, promise: str) -> dict[str, Any]:
    cases = [case for case in run.cases if case.guarantee == promise]
    # Of a case that was repeated and then cut off there may be two: the later one counts.
    tried = {found.case.id: found for found in run.attempts if found.column == column.name}
    done = [tried[case.id] for case in cases if case.id in tried]
    not_run = [case for case in cases if case.id not in tried]
    declared = _guarantees(run, column).holds(promise)
    said = standing([found.outcome for found in done], declared=declared, baseline=column.baseline)
    if not_run and said in _KEPT:
        said = Standing.NOT_TRIED
    return {
        "column": column.name,
        "promise": promise,
        "standing": str(said),
        "cases": [_case(found) for found in done],
        "not_run": [_not_run(column, case) for case in not_run],
    }


def _not_run(column: Column, case: Case) -> dict[str, str]:
    return {"id": case.id, "title": case.title, "repeat": repeat_command(column.name, case.id)}


def _case(found: Attempt) -> dict[str, Any]:
    shown, omitted = shown_events(found.events, found.account)
    began = min((event.time for event in found.events), default=0.0)
    return {
        "id": found.case.id,
        "title": found.case.title,
        "outcome": str(found.outcome),
        "detail": found.detail,
        "seconds": round(found.seconds, 3),
        "alone": found.alone,
        "late": found.late,
        "facts": _plain(found.facts),
        "bounds": _plain(found.bounds),
        "account": _account(found.account),
        "timeline": [_event(event, began) for event in shown],
        "timeline_omitted": omitted,
        "logs": {name: redact(text) for name, text in found.logs.items()},
        "repeat": repeat_command(found.column, found.case.id),
    }


def _account(verdict: Account) -> dict[str, Any]:
    sets: dict[str, Ids] = {name: getattr(verdict, name) for name in _SETS}
    cut = {name: {"count": len(ids), "ids": sorted(ids)[:IDS_SHOWN]} for name, ids in sets.items()}
    return {"sent": len(verdict.sent), **cut}


def shown_events(events: Iterable[Event], verdict: Account) -> tuple[list[Event], int]:
    """Return the events to list, in order, and how many are left out.

    First come faults, starts of workers and the ids in question, then the earliest. That a task was being
    sent is told only where `sent` does not say that it was.
    """
    told = [event for event in events if event.kind != "sending" or event.id not in verdict.sent]
    told.sort(key=lambda event: event.time)
    asked = {id_ for name in _SETS for id_ in sorted(getattr(verdict, name))[:IDS_SHOWN]}
    matter = [event for event in told if event.kind in _ALWAYS_SHOWN or event.id in asked]
    rest = [event for event in told if not (event.kind in _ALWAYS_SHOWN or event.id in asked)]
    room = max(0, EVENTS_SHOWN - len(matter))
    shown = sorted([*matter[:EVENTS_AT_MOST], *rest[:room]], key=lambda event: event.time)
    return shown, len(told) - len(shown)


def _event(event: Event, began: float) -> dict[str, Any]:
    return {
        "t": round(event.time - began, 3),
        "kind": event.kind,
        "id": event.id,
        "process": event.process,
        "text": redact(event.text),
        "again": event.again,
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without passwords."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return redact(value)


# -- the form -----------------------------------------------------------------------------------------


def _problem(found: Mapping[str, Any]) -> str:
    """Return what is wrong with the form, so far as the reports and a comparison read it."""
    for name, kind in (("promises", dict), ("columns", list), ("cells", list), ("load", list)):
        if not isinstance(found.get(name), kind):
            return f"{name!r} is missing or of the wrong type"
    columns = [column.get("name") for column in found["columns"] if isinstance(column, dict)]
    if len(columns) != len(found["columns"]) or not all(isinstance(name, str) for name in columns):
        return "a column has no name"
    for cell in found["cells"]:
        if not isinstance(cell, dict) or not isinstance(cell.get("cases"), list):
            return "a cell has no cases"
        if cell.get("column") not in columns or cell.get("promise") not in found["promises"]:
            return "a cell is of no column or no promise of the document"
        if cell.get("standing") not in set(Standing):
            return f"the standing {cell.get('standing')!r} is unknown"
    return ""
