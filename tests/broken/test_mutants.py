"""A suite that cannot fail proves nothing: each way to be broken is found, and named, and no other is.

Every mutant is a transport, or a result store, with one defect. It runs through everything that a real
column runs through: a host, a stage, real workers and clients, a case of the real scenarios, a standing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker_profiles.comparison.column import Host, hosted, parse
from broker_profiles.comparison.matrix import Standing, standing
from broker_profiles.comparison.run import Attempt, attempt
from broker_profiles.comparison.scenario import Case, all_cases
from broker_profiles.comparison.stage import Stage
from broker_profiles.profile import CONTRACT

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """A class of `mutants` or a module of `results`, the promise that it breaks, the case that finds it, and
    what that case then says.
    """

    name: str
    promise: str
    case: str
    says: str
    fast: bool = False


MUTANTS = [
    Mutant("AcknowledgesBeforeRunning", "DEL-1", "worker_killed", "did not run again"),
    Mutant("EmptiesOnOpening", "DEL-2", "killed_under_load", "have not run"),
    Mutant("LosesOneInAThousand", "DEL-2", "thousands", r"^1 of 250 tasks"),
    Mutant("StoresLater", "DEL-3", "killed_right_after", "have not run"),
    Mutant("SwallowsPublishErrors", "DEL-3", "silent", "though the broker could not have the message"),
    Mutant("ForgetsToRenew", "DEL-4", "long_task", "was run again"),
    Mutant("HasNoFence", "DEL-4", "frozen_worker_cannot_acknowledge", "was not run again"),
    Mutant("NeverSetsAside", "DEL-5", "child_killed_each_time", "goes on"),
    Mutant("DeliversTwice", "DEL-6", "terminated", r"\d+ duplicated"),
    Mutant("GivesNothingBack", "DEL-6", "acknowledgements_on_the_way", "have no finish"),
    Mutant("LosesOneInFifty", "DEL-6", "acknowledgements_on_the_way", "have no finish"),
    Mutant("StaysAway", "DEL-7", "frozen_for_30_seconds", "did not start"),
    Mutant("ThrowsAwayWhatItCannotRead", "DEL-8", "bodies", "nor become dead letters"),
    Mutant("DeliversDelayedAtOnce", "ETA-1", "on_time", "early"),
    Mutant("HoldsDelayedInTheWorker", "ETA-1", "restarts", "the worker holds"),
    Mutant("HoldsDelayedInTheWorker", "ETA-2", "a_hundred_thousand", "immediate task|delayed ones|has grown"),
    Mutant("IgnoresExpires", "ETA-3", "asked_for", "hands out a task that has expired"),
    Mutant("IgnoresPriority", "ORD-1", "every_priority", "they ran in the order", fast=True),
    Mutant("LastInFirstOut", "ORD-2", "one_process", "before one that was sent earlier", fast=True),
    Mutant("private", "RES-1", "other_readers", "was read as PENDING"),
    Mutant("miscounted", "RES-2", "with_counting", "a chord of 20 failed"),
    Mutant("everlasting", "RES-3", "expires", "that had expired was read"),
    Mutant("dropped", "RES-4", "finished_meanwhile", "result was lost"),
    Mutant("LosesBroadcasts", "CTL-1", "inspected", "did not answer"),
    Mutant("LosesEvents", "CTL-2", "received", "not every event is seen"),
]


def settings_of(mutant: str) -> dict[str, Any]:
    """Return the Celery settings that choose it."""
    if mutant[0].islower():
        return {"imports": [f"tests.broken.results.{mutant}"]}
    return {"broker_transport": f"tests.broken.mutants:{mutant}"}


def cases() -> dict[str, Case]:
    return {found.id: found for found in all_cases()}


def params() -> Iterator[object]:
    for mutant in MUTANTS:
        marks = [] if mutant.fast else [pytest.mark.slow]
        yield pytest.param(mutant, id=f"{mutant.name}-{mutant.promise}", marks=marks)


def twins() -> Iterator[object]:
    fast = {(mutant.promise, mutant.case) for mutant in MUTANTS if mutant.fast}
    for promise, name in dict.fromkeys((mutant.promise, mutant.case) for mutant in MUTANTS):
        marks = [] if (promise, name) in fast else [pytest.mark.slow]
        yield pytest.param(promise, name, id=f"{promise}-{name}", marks=marks)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosted(parse("embedded")) as embedded:
        yield embedded


def on(mutant: str, case: Case) -> Case:
    """Return the case with the mutant in all its workers and clients."""

    def run(stage: Stage) -> None:
        stage.configure(PYTHONPATH=str(ROOT))
        stage.set(**settings_of(mutant))
        case.run(stage)

    return replace(case, run=run)


def said_of(host: Host, found: Attempt) -> Standing:
    declared = host.column.profile.guarantees.holds(found.case.guarantee)
    return standing([found.outcome], declared=declared, baseline=host.column.baseline)


@pytest.mark.parametrize("mutant", list(params()))
def test_what_is_broken_is_named(mutant: Mutant, host: Host, tmp_path: Path) -> None:
    case = cases()[f"{mutant.promise}/{mutant.case}"]
    found = attempt(host, on(mutant.name, case), tmp_path / "stage")
    assert said_of(host, found) is Standing.BROKEN_PROMISE, f"{found.outcome} {found.detail}"
    assert re.search(mutant.says, found.detail), found.detail


@pytest.mark.parametrize(("promise", "name"), list(twins()))
def test_the_sound_twin_keeps_the_promise(promise: str, name: str, host: Host, tmp_path: Path) -> None:
    case = cases()[f"{promise}/{name}"]
    found = attempt(host, on("Sound", case), tmp_path / "stage", alone=True)
    assert said_of(host, found) is Standing.HOLDS, f"{found.outcome} {found.detail} {found.logs}"


def transport_of(app: Any) -> str:
    """In a client: return the transport that the application uses."""
    with app.connection_for_write() as connection:
        return type(connection.transport).__name__


def test_the_override_reaches_the_processes(host: Host, tmp_path: Path) -> None:
    def run(stage: Stage) -> None:
        assert stage.client.call(transport_of) == "ForgetsToRenew"

    case = Case("DEL-4", "", "", run, False, False)
    found = attempt(host, on("ForgetsToRenew", case), tmp_path / "stage")
    assert found.detail == ""


def test_the_table_names_cases_that_there_are() -> None:
    known = cases()
    for mutant in MUTANTS:
        assert f"{mutant.promise}/{mutant.case}" in known


def test_every_promise_is_broken_by_one() -> None:
    """But those in which neither a transport nor a result store has a part: settings, beat, the network."""
    broken = {mutant.promise for mutant in MUTANTS}
    assert set(CONTRACT) - broken == {"CFG-1", "BEAT-1", "SEC-1"}
