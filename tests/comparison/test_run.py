"""What a long run must not pile up, and what must not hide what a case has shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from broker_profiles.comparison.account import account
from broker_profiles.comparison.column import Host, hosted, parse
from broker_profiles.comparison.pressure import Meter
from broker_profiles.comparison.run import Attempt, Run, attempt
from broker_profiles.comparison.scenario import Case, Outcome, PromiseBroken, all_cases, select
from broker_profiles.comparison.stage import Stage

pytestmark = pytest.mark.timeout(120)


def made_up(run: Callable[[Stage], None], name: str = "made_up") -> Case:
    return Case("DEL-1", "made up", name, run, quick=False, fresh=False)


def cannot_heal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server of a case stay as the case leaves it."""

    def unhealthy() -> None:
        raise OSError("it cannot be healed")

    monkeypatch.setattr(stage.server, "heal", unhealthy)


@pytest.fixture
def host() -> Iterator[Host]:
    with hosted(parse("embedded")) as started:
        yield started


def test_a_case_leaves_no_file_open(host: Host, tmp_path: Path) -> None:
    (case,) = select(all_cases(), ["ORD-2/one_process"])
    opened = []
    for number in range(3):
        assert attempt(host, case, tmp_path / str(number)).outcome is Outcome.KEPT
        opened.append(psutil.Process().num_fds())
    assert opened[2] == opened[0]


def test_what_goes_wrong_afterwards_does_not_hide_what_was_broken(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(stage: Stage) -> None:
        cannot_heal(stage, monkeypatch)
        raise PromiseBroken("a task was lost")

    case = made_up(breaks)
    found = attempt(host, case, tmp_path / "case")
    assert (found.outcome, found.detail) == (Outcome.BROKEN, "a task was lost")


def test_what_goes_wrong_afterwards_is_an_error_where_nothing_was_broken(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keeps(stage: Stage) -> None:
        cannot_heal(stage, monkeypatch)

    found = attempt(host, made_up(keeps), tmp_path / "case")
    assert found.outcome is Outcome.ERROR
    assert "it cannot be healed" in found.detail


def test_who_has_no_column_left_helps_with_the_cases_of_another() -> None:
    both = threading.Barrier(2, timeout=60)

    def meets(stage: Stage) -> None:
        both.wait()

    def passes(stage: Stage) -> None:
        pass

    # The first and the last meet only where they run at once.
    cases = [made_up(meets if number in (0, 11) else passes, f"case{number}") for number in range(12)]
    run = Run([parse("embedded")], cases, jobs=2, environ=os.environ)
    assert sorted(found.case.id for found in run()) == sorted(case.id for case in cases)
    assert {found.outcome for found in run.attempts} == {Outcome.KEPT}


def test_one_lane_runs_everything_by_itself() -> None:
    cases = [made_up(lambda stage: None, f"case{number}") for number in range(12)]
    run = Run([parse("embedded")], cases, jobs=1, environ=os.environ)
    assert [found.case for found in run()] == cases


@pytest.mark.parametrize(
    ("column", "share", "doubtful"),
    [("embedded", 1.0, True), ("embedded", 0.5, False), ("redis:fast", 1.0, False)],
)
def test_what_seems_broken_on_an_overloaded_machine_is_tried_again_where_it_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, share: float, doubtful: bool
) -> None:
    def breaks(stage: Stage) -> None:
        raise PromiseBroken("a task was lost")

    class Loaded(Meter):
        def lap(self) -> tuple[float, float]:
            return 1.0, share

    monkeypatch.setattr("broker_profiles.comparison.run.Meter", Loaded)
    # It is not started: the case does nothing with its servers.
    found = attempt(Host(parse(column)), made_up(breaks), tmp_path / "case")
    assert (found.outcome, found.late) == (Outcome.BROKEN, doubtful)


@pytest.mark.parametrize(
    ("column", "again"), [("stock-redis", ["DEL-2/late"]), ("redis", ["DEL-1/late", "DEL-2/late"])]
)
def test_of_a_baseline_only_what_a_cell_depends_on_is_tried_again(
    column: str, again: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(guarantee: str, name: str, late: bool) -> Attempt:
        case = Case(guarantee, "made up", name, lambda stage: None, quick=False, fresh=False)
        return Attempt(column, case, Outcome.BROKEN, "", 1.0, {}, account([]), [], late=late)

    run = Run([parse(column), parse("embedded")], [], jobs=2, environ=os.environ)
    run.attempts = [of("DEL-1", "late", True), of("DEL-1", "lost", False), of("DEL-2", "late", True)]
    tried: list[str] = []
    monkeypatch.setattr(
        run, "_lane_alone", lambda column, folder, late: tried.extend(found.case.id for found in late)
    )
    run._again(tmp_path)
    assert tried == again
