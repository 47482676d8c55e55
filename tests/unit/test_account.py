"""The verdict on a run: against histories whose verdict is known, and against a second way to work it out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_profiles.comparison.account import (
    Account,
    account,
    lateness,
    out_of_order,
    overlapping,
    starts_in_order,
)
from broker_profiles.comparison.ledger import KINDS, Event, Kind

#: What can become of one task: its events in their order, and the sets it then belongs to.
#: A digit is the process of a start or finish; `!` is `sent`, `?` `sending`, `x` `refused`, `d` `dead`.
HISTORIES: dict[str, set[str]] = {
    "?! s1 f1": {"sent"},
    "? s1 f1 !": {"sent"},
    "? s1 ! f1": {"sent"},
    "?!": {"sent", "lost"},
    "?! s1": {"sent", "lost"},
    "?! s1 s2": {"sent", "lost"},
    "?! s1 s2 f2": {"sent", "recovered"},
    "?! s1 s1 f1": {"sent", "recovered"},
    "?! s1 s2 f1": {"sent", "recovered"},
    "?! s1 f1 s2": {"sent", "duplicated"},
    "?! s1 f1 s2 f2": {"sent", "duplicated"},
    "?! s1 s2 f1 f2": {"sent", "duplicated"},
    "?! s1 s2 f2 s3 f3": {"sent", "duplicated"},
    "?! s1 s2 f2 f1": {"sent", "duplicated"},
    "?! d": {"sent", "set_aside"},
    "?! s1 s2 d": {"sent", "set_aside"},
    "?! s1 d s2 f2": {"sent", "recovered"},
    "? d": {"unsure", "set_aside"},
    "?! w": {"sent", "withdrawn"},
    "?! s1 w": {"sent", "withdrawn"},
    "?! w s1 f1": {"sent"},
    "?! w d": {"sent", "set_aside"},
    "?x": {"unsure"},
    "?": {"unsure"},
    "?x s1 f1": {"unsure"},
    "? s1": {"unsure"},
    "?x s1 f1 s2 f2": {"unsure", "duplicated"},
    "?x s1 s2 f2": {"unsure", "recovered"},
    "s1 f1": {"unexpected"},
    "s1": {"unexpected"},
    "f1": {"unexpected"},
    "s1 f1 s2 f2": {"unexpected", "duplicated"},
    "s1 s2 f2": {"unexpected", "recovered"},
}

SETS = ("sent", "lost", "duplicated", "recovered", "unexpected", "unsure", "set_aside", "withdrawn")
_KINDS: dict[str, Kind] = {
    "?": "sending",
    "!": "sent",
    "x": "refused",
    "s": "start",
    "f": "finish",
    "d": "dead",
    "w": "withdrawn",
}


def signs(history: str) -> list[tuple[Kind, int]]:
    """Return the kinds and the processes of a history."""
    found: list[tuple[Kind, int]] = []
    for sign in history.replace(" ", ""):
        if sign.isdigit():
            found[-1] = (found[-1][0], int(sign))
        else:
            found.append((_KINDS[sign], 99))
    return found


def happened(*histories: str, order: Iterable[int] = ()) -> list[Event]:
    """Return the events of tasks "0", "1", ..., one history each, mixed as `order` says."""
    waiting = {str(number): signs(history) for number, history in enumerate(histories)}
    turns = itertools.chain(order, itertools.count())
    events: list[Event] = []
    while left := [id_ for id_, rest in waiting.items() if rest]:
        id_ = left[next(turns) % len(left)]
        kind, process = waiting[id_].pop(0)
        events.append(Event(kind, id_, float(len(events)), process))
    return events


def sets_of(verdict: Account) -> dict[str, set[str]]:
    return {name: set(getattr(verdict, name)) for name in SETS}


@pytest.mark.parametrize("history", HISTORIES)
def test_what_became_of_one_task(history: str) -> None:
    verdict = sets_of(account(happened(history)))
    assert {name for name, ids in verdict.items() if ids} == HISTORIES[history]


@given(
    st.lists(st.sampled_from(sorted(HISTORIES)), max_size=12),
    st.lists(st.integers(0, 100), max_size=80),
    st.randoms(use_true_random=False),
)
def test_tasks_do_not_disturb_each_other_and_order_of_reading_does_not_matter(
    histories: list[str], order: list[int], random: object
) -> None:
    events = happened(*histories, order=order)
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    wanted = {
        name: {str(n) for n, history in enumerate(histories) if name in HISTORIES[history]} for name in SETS
    }
    assert sets_of(account(events)) == wanted
    assert account(shuffled) == account(iter(events))
    assert overlapping(shuffled) == overlapping(events)
    assert starts_in_order(shuffled) == starts_in_order(events)
    assert lateness(shuffled, dict.fromkeys("0123", 1.0)) == lateness(events, dict.fromkeys("0123", 1.0))


ANYTHING = st.lists(
    st.builds(
        Event,
        st.sampled_from(KINDS),
        st.sampled_from("abcd"),
        st.floats(0, 1000),
        st.integers(1, 3),
        st.text(max_size=3),
        st.booleans(),
    ),
    max_size=40,
    unique_by=lambda event: event.time,
)


@given(ANYTHING)
def test_whatever_happens_the_sets_are_disjoint_where_they_must_be(events: list[Event]) -> None:
    verdict = account(events)
    assert verdict.lost <= verdict.sent
    for one, other in [
        ("lost", "duplicated"),
        ("lost", "recovered"),
        ("lost", "unexpected"),
        ("lost", "unsure"),
        ("lost", "set_aside"),
        ("lost", "withdrawn"),
        ("set_aside", "withdrawn"),
        ("duplicated", "recovered"),
        ("sent", "unexpected"),
        ("sent", "unsure"),
        ("unsure", "unexpected"),
    ]:
        assert not getattr(verdict, one) & getattr(verdict, other), (one, other)
    assert verdict.clean == (not (verdict.lost or verdict.duplicated or verdict.unexpected))


@given(ANYTHING)
def test_a_second_way_to_work_it_out_says_the_same(events: list[Event]) -> None:
    def times(kind: Kind, id_: str) -> list[float]:
        return [event.time for event in events if (event.kind, event.id) == (kind, id_)]

    verdict = account(events)
    for id_ in "abcd":
        starts, finishes = times("start", id_), times("finish", id_)
        sent, tried = bool(times("sent", id_)), bool(times("sending", id_) + times("refused", id_))
        again = len(finishes) > 1 or any(start > min(finishes) for start in starts if finishes)
        assert (id_ in verdict.sent) is sent
        dead = bool(times("dead", id_))
        withdrawn = bool(times("withdrawn", id_))
        assert (id_ in verdict.lost) is (sent and not finishes and not dead and not withdrawn)
        assert (id_ in verdict.withdrawn) is (withdrawn and not finishes and not dead)
        assert (id_ in verdict.set_aside) is (dead and not finishes)
        assert (id_ in verdict.duplicated) is again
        assert (id_ in verdict.recovered) is (len(starts) > 1 and bool(finishes) and not again)
        assert (id_ in verdict.unexpected) is (bool(starts or finishes) and not sent and not tried)
        assert (id_ in verdict.unsure) is (tried and not sent)


@given(ANYTHING)
def test_what_is_not_about_a_task_changes_nothing(events: list[Event]) -> None:
    said = [event for event in events if event.kind not in ("fault", "note", "ready")]
    assert account(said) == account(events)


def test_a_verdict_in_words() -> None:
    assert account([]).summary() == "0 sent, 0 lost, 0 duplicated"
    assert account(happened("?!", "?! s1 s2 f2", "s1 f1", "?x")).summary() == (
        "2 sent, 1 lost, 0 duplicated, 1 recovered, 1 unexpected"
    )


# -- order ----------------------------------------------------------------------------------------


@given(st.permutations(range(8)), st.lists(st.integers(0, 11), unique=True))
def test_out_of_order_are_those_before_one_they_had_to_follow(wanted: list[int], seen: list[int]) -> None:
    place = {id_: wanted.index(id_) for id_ in wanted}
    known = [id_ for id_ in seen if id_ in place]
    early = [
        id_ for at, id_ in enumerate(known) if any(place[later] < place[id_] for later in known[at + 1 :])
    ]
    assert out_of_order(map(str, wanted), map(str, seen)) == list(map(str, early))


def test_in_order_is_not_out_of_order_whatever_is_missing() -> None:
    assert out_of_order("abcd", "abcd") == []
    assert out_of_order("abcd", "bd") == []
    assert out_of_order("abcd", "xayd") == []
    assert out_of_order("abcd", "") == out_of_order("", "abcd") == []
    assert out_of_order("abcd", "dabc") == ["d"]
    assert out_of_order("abcd", "dcba") == ["d", "c", "b"]


def test_the_order_of_starts_is_that_of_the_first_ones() -> None:
    events = happened("?! s1 s2 f2", "?! s1 f1", order=[0, 1, 0, 1, 0, 1, 0])
    assert starts_in_order(events) == ["0", "1"]


# -- time -----------------------------------------------------------------------------------------


def test_lateness_is_of_the_first_start_and_negative_where_it_was_early() -> None:
    events = [
        Event("start", "late", 12.5, 1),
        Event("start", "late", 11.0, 1),
        Event("start", "early", 9.0, 1),
        Event("finish", "never", 10.0, 1),
        Event("start", "nobody asked", 1.0, 1),
    ]
    due = {"late": 10.0, "early": 10.0, "never": 10.0}
    assert lateness(events, due) == {"late": 1.0, "early": -1.0}


# -- at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "at_once"),
    [
        ("s1 f1 s2 f2", False),
        ("s1 s2 f1 f2", True),
        ("s1 s2 f2 f1", True),
        # One that was cut off does not count: at least once is what is promised.
        ("s1 s2 f2", False),
        ("s1 s2 f1", False),
        # Threads of one process.
        ("s1 s1 f1 f1", True),
        ("s1 s1 f1", False),
        ("s1 f1 s1 f1", False),
        ("s1 s1 f1 s1 f1", False),
        # The later run of a process must not hide its earlier one.
        ("s1 s2 f2 f1 s1 f1", True),
        ("s1 s2 f2 f1 s1", True),
        ("s1 f1 s2 s3 f3 f2 s4 f4", True),
        ("f1", False),
        ("s1 f1 f1 s2 f2", False),
    ],
)
def test_two_whole_runs_at_once(history: str, at_once: bool) -> None:
    assert overlapping(happened("?! s1 f1", f"?! {history}")) == ({"1"} if at_once else set())


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), min_size=1, max_size=6))
def test_runs_of_processes_of_their_own_overlap_where_their_spans_do(spans: list[tuple[int, int]]) -> None:
    events = [
        event
        for process, (begin, length) in enumerate(spans)
        for event in (
            # No two times are the same, for those of a clock are not.
            Event("start", "a", begin + process / 100, process),
            Event("finish", "a", begin + length + process / 100, process),
        )
    ]
    whole = [(begin + n / 100, begin + length + n / 100) for n, (begin, length) in enumerate(spans)]
    meet = any(one[0] < other[1] and other[0] < one[1] for one, other in itertools.combinations(whole, 2))
    assert overlapping(events) == ({"a"} if meet else set())
