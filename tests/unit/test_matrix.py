"""What is said of a promise, for every set of outcomes there can be."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from broker_profiles.comparison.matrix import Standing, standing
from broker_profiles.comparison.scenario import Outcome

EVERY_SET = [set(some) for some in chain(*(combinations(Outcome, size) for size in range(5)))]


@pytest.mark.parametrize("seen", EVERY_SET, ids=lambda seen: "+".join(sorted(seen)) or "nothing")
@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_every_set_of_outcomes(seen: set[Outcome], declared: bool, baseline: bool) -> None:
    said = standing(seen, declared=declared, baseline=baseline)
    if Outcome.BROKEN in seen:
        # Whatever else was seen; but what was never promised fails no run.
        assert said.fails is declared
        assert said in (Standing.BROKEN_PROMISE, Standing.NOT_OFFERED, Standing.SEEN_BROKEN)
    elif Outcome.ERROR in seen:
        assert said is Standing.ERROR
    elif Outcome.KEPT in seen:
        assert said in (Standing.HOLDS, Standing.UNDECLARED, Standing.SEEN_KEPT)
        assert (said is Standing.HOLDS) is declared
    else:
        assert said is Standing.NOT_TRIED


@pytest.mark.parametrize("seen", [set(), {Outcome.NOT_APPLICABLE}])
def test_what_was_not_tried_is_never_said_to_hold(seen: set[Outcome]) -> None:
    for declared in (False, True):
        assert standing(seen, declared=declared, baseline=False) is Standing.NOT_TRIED


@pytest.mark.parametrize(
    ("outcome", "promised", "unpromised", "baseline"),
    [
        (Outcome.KEPT, Standing.HOLDS, Standing.UNDECLARED, Standing.SEEN_KEPT),
        (Outcome.BROKEN, Standing.BROKEN_PROMISE, Standing.NOT_OFFERED, Standing.SEEN_BROKEN),
    ],
)
def test_one_outcome(outcome: Outcome, promised: Standing, unpromised: Standing, baseline: Standing) -> None:
    assert standing([outcome], declared=True, baseline=False) is promised
    assert standing([outcome], declared=False, baseline=False) is unpromised
    assert standing([outcome], declared=False, baseline=True) is baseline


def test_how_often_and_in_which_order_does_not_matter() -> None:
    for seen in EVERY_SET:
        wanted = standing(seen, declared=True, baseline=False)
        assert standing([*seen, *seen][::-1], declared=True, baseline=False) is wanted
        assert standing(iter(seen), declared=True, baseline=False) is wanted


def test_what_a_run_fails_by() -> None:
    assert {said for said in Standing if said.fails} == {Standing.BROKEN_PROMISE, Standing.ERROR}
