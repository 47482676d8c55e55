"""Scenarios as the suite finds them: every promise has one, and every case can be selected."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from broker_profiles.comparison import scenario
from broker_profiles.comparison.scenario import (
    Case,
    NotApplicable,
    PromiseBroken,
    TooLate,
    all_cases,
    case,
    cases_of,
    select,
)
from broker_profiles.profile import CONTRACT

FOLDER = Path(scenario.__file__).parent / "scenarios"
MODULES = [
    importlib.import_module(f"broker_profiles.comparison.scenarios.{found.name}")
    for found in pkgutil.iter_modules([str(FOLDER)])
]
CASES = all_cases()


def named(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


# -- those there are ------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", CONTRACT)
def test_every_promise_of_the_contract_has_a_case(promise: str) -> None:
    assert [found.id for found in CASES if found.guarantee == promise]


def test_no_two_cases_have_the_same_id() -> None:
    assert [id_ for id_, times in Counter(found.id for found in CASES).items() if times > 1] == []


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_file_is_named_after_its_promise_and_no_case_is_left_out(module: ModuleType) -> None:
    marked = [name for name, value in vars(module).items() if callable(value) and hasattr(value, "case")]
    if not hasattr(module, "GUARANTEE"):
        assert marked == [], "these cases belong to no promise, and nobody runs them"
        return
    assert named(module).startswith(module.GUARANTEE.lower().replace("-", "_"))
    assert [found.name for found in cases_of(module)] == marked
    assert (module.__doc__ or "").startswith(f"{module.GUARANTEE}: ")


@pytest.mark.parametrize("found", CASES, ids=lambda found: found.id)
def test_a_case_says_what_it_tries_and_takes_a_stage(found: Case) -> None:
    assert found.title == found.title.strip().rstrip(".") != ""
    assert inspect.getdoc(found.run)
    assert len(inspect.signature(found.run).parameters) == 1


def test_cases_come_in_the_order_of_the_contract() -> None:
    order = list(CONTRACT)
    places = [order.index(found.guarantee) for found in CASES]
    assert places == sorted(places)


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_scenario_knows_no_broker(module: ModuleType) -> None:
    source = inspect.getsource(module)
    for question in ("broker.name", "profile.name ", "profile.name=", "column.name", ".broker.system"):
        assert question not in source


# -- finding them ---------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of scenarios of the test's own, in place of the real one."""
    folder = tmp_path / "made_up_scenarios"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(scenario, "_PACKAGE", "made_up_scenarios")
    yield folder
    for name in [name for name in sys.modules if name.startswith("made_up_scenarios")]:
        del sys.modules[name]


HEAD = "from broker_profiles.comparison.scenario import case\n"


def write(package: Path, name: str, guarantee: str, *cases: str) -> None:
    bodies = "".join(f"@case('{name} does it')\ndef {name}(stage): pass\n" for name in cases)
    (package / f"{name}.py").write_text(f"{HEAD}GUARANTEE = {guarantee!r}\n{bodies}")


def test_all_cases_in_the_order_of_the_contract_and_then_of_the_file(package: Path) -> None:
    write(package, "a", "ETA-1", "z", "y")
    write(package, "b", "DEL-1", "x")
    write(package, "c", "ETA-1", "w")
    (package / "helping.py").write_text("def help(): pass")
    assert [found.id for found in all_cases()] == ["DEL-1/x", "ETA-1/z", "ETA-1/y", "ETA-1/w"]


def test_a_scenario_of_no_promise_is_an_error_that_names_it(package: Path) -> None:
    write(package, "lost", "DEL-99", "x")
    with pytest.raises(ValueError, match=r"made_up_scenarios\.lost: GUARANTEE is 'DEL-99'"):
        all_cases()


def test_a_scenario_without_cases_is_an_error_that_names_it(package: Path) -> None:
    write(package, "empty", "DEL-1")
    with pytest.raises(ValueError, match=r"made_up_scenarios\.empty has no case"):
        all_cases()


def test_cases_without_a_promise_are_an_error_that_names_them(package: Path) -> None:
    (package / "forgot.py").write_text(f"{HEAD}@case('x does it')\ndef x(stage): pass\n")
    with pytest.raises(ValueError, match=r"made_up_scenarios\.forgot: GUARANTEE is ''"):
        all_cases()


def test_a_case_belongs_to_the_file_that_holds_it(package: Path) -> None:
    write(package, "a", "DEL-1", "x")
    write(package, "b", "DEL-2", "y")
    with (package / "b.py").open("a") as file:
        file.write("from made_up_scenarios.a import x\nagain = y\n")
    assert [found.id for found in all_cases()] == ["DEL-1/x", "DEL-2/y"]


def test_what_a_case_is_marked_with() -> None:
    @case("tries it", quick=True)
    def one(stage: object) -> None: ...

    @case("tries it otherwise", fresh=True)
    def other(stage: object) -> None: ...

    module = ModuleType("made_up")
    module.__dict__.update(GUARANTEE="DEL-1", one=one, other=other, case=case, Case=Case)
    one.__module__ = other.__module__ = "made_up"
    assert cases_of(module) == [
        Case("DEL-1", "tries it", "one", one, True, False),
        Case("DEL-1", "tries it otherwise", "other", other, False, True),
    ]
    with pytest.raises(ValueError, match="GUARANTEE is ''"):
        cases_of(ModuleType("made_up"))


# -- selecting them -------------------------------------------------------------------------------


def made(*ids: str) -> list[Case]:
    return [Case(*id_.split("/")[:1], "", id_.split("/")[1], lambda stage: None, False, False) for id_ in ids]


SOME = made("DEL-1/a", "DEL-1/b", "DEL-2/a", "ETA-1/a")


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ([], "DEL-1/a DEL-1/b DEL-2/a ETA-1/a"),
        (["", "  "], "DEL-1/a DEL-1/b DEL-2/a ETA-1/a"),
        (["DEL"], "DEL-1/a DEL-1/b DEL-2/a"),
        (["DEL-1"], "DEL-1/a DEL-1/b"),
        (["DEL-1/b"], "DEL-1/b"),
        (["eta", " del-1/B "], "DEL-1/b ETA-1/a"),
        (["ETA-1", "ETA", "DEL-2/a", "DEL-2"], "DEL-2/a ETA-1/a"),
    ],
)
def test_a_selection_keeps_the_order_and_repeats_nothing(wanted: list[str], ids: str) -> None:
    assert [found.id for found in select(SOME, wanted)] == ids.split()
    assert [found.id for found in select(iter(SOME), iter(wanted))] == ids.split()


@pytest.mark.parametrize("name", ["DE", "DEL-", "DEL-3", "a", "DEL-1/", "/a", "DEL-1/c", "DEL-1/a/b", "*"])
def test_a_name_that_none_has_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(LookupError) as raised:
        select(SOME, ["ETA", name, "unknown"])
    assert raised.value.args == (name,)


def test_lateness_is_a_break_and_what_cannot_be_tried_is_none() -> None:
    assert issubclass(TooLate, PromiseBroken)
    assert not issubclass(NotApplicable, PromiseBroken)
