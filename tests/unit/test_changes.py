"""What changed between two results documents."""

from __future__ import annotations

import pytest

from broker_profiles.comparison.report.changes import Change, compare
from tests.comparison.documents import small


def said(**standings: tuple[str, str]) -> list[Change]:
    """Return the changes of promises from a standing to another."""
    old = small(**{name: before for name, (before, _) in standings.items()})
    return compare(old, small(**{name: after for name, (_, after) in standings.items()}))


def test_the_same_twice_is_no_change() -> None:
    assert not said(DEL_1=("holds", "holds"), DEL_2=("broken promise", "broken promise"))


@pytest.mark.parametrize("before", ["holds", "not offered", "not tried", "error", "kept, but not declared"])
def test_a_promise_is_newly_broken(before: str) -> None:
    (change,) = said(DEL_1=(before, "broken promise"))
    assert change.newly_broken
    assert not change.newly_holds
    assert str(change) == f"newly broken: DEL-1 on embedded: was '{before}', is 'broken promise'"


@pytest.mark.parametrize(
    ("before", "after"), [("broken promise", "holds"), ("broken", "kept"), ("not offered", "holds")]
)
def test_a_promise_newly_holds(before: str, after: str) -> None:
    (change,) = said(DEL_1=(before, after))
    assert change.newly_holds
    assert not change.newly_broken
    assert str(change).startswith("newly holds: DEL-1 on embedded")


@pytest.mark.parametrize(
    ("before", "after"),
    [("not tried", "not offered"), ("holds", "not tried"), ("not tried", "holds"), ("kept", "broken")],
)
def test_what_breaks_no_promise_is_a_change_all_the_same(before: str, after: str) -> None:
    (change,) = said(DEL_1=(before, after))
    assert not change.newly_broken
    assert not change.newly_holds
    assert str(change) == f"DEL-1 on embedded: was '{before}', is '{after}'"


def test_a_promise_that_held_and_is_withdrawn_is_newly_broken() -> None:
    (change,) = said(DEL_1=("holds", "not offered"))
    assert change.newly_broken
    assert str(change) == "newly broken: DEL-1 on embedded: was 'holds', is 'not offered'"


def test_what_is_broken_comes_first() -> None:
    changes = said(
        DEL_1=("holds", "not tried"), DEL_2=("broken promise", "holds"), DEL_3=("holds", "broken promise")
    )
    assert [change.promise for change in changes] == ["DEL-3", "DEL-2", "DEL-1"]


def test_a_column_on_one_side_is_one_change() -> None:
    both = small(DEL_1="holds", DEL_2="holds")
    column = {**both["columns"][0], "name": "redis"}
    cells = [{**cell, "column": "redis", "standing": "broken promise"} for cell in both["cells"]]
    more = {**both, "columns": [*both["columns"], column], "cells": [*both["cells"], *cells]}
    (added,) = compare(both, more)
    assert str(added) == "the column redis: not in the earlier run"
    assert not added.newly_broken
    (gone,) = compare(more, both)
    assert str(gone) == "the column redis: only in the earlier run"


def test_a_promise_on_one_side_is_one_change() -> None:
    one, two = small(DEL_1="holds"), small(DEL_1="holds", DEL_2="broken promise")
    assert [str(change) for change in compare(one, two)] == ["the promise DEL-2: not in the earlier run"]
    assert [str(change) for change in compare(two, one)] == ["the promise DEL-2: only in the earlier run"]
