"""Dead letters of a leased store: looked at page by page, and never lost or doubled by a replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from broker_profiles.transports import validity
from broker_profiles.transports.store import PAGE, REJECTED, SHOWN, Outgoing, Sizes, Store
from tests.dying import dies
from tests.stores.storing import StoreFixtures, bodies, eventually, receipts


def bury(store: Store, *messages: bytes, queue: str = "q", detail: str = "because") -> None:
    store.publish([Outgoing(queue, body) for body in messages])
    store.set_aside(receipts(store.reserve("c", [queue], len(messages))), REJECTED, detail)


def _replaying(store: Store, ids: list[int | str]) -> Callable[[], object]:
    own = store.clone()
    own.exists("q")  # it is connected
    return lambda: own.replay(ids)


class DeadLetterContract(StoreFixtures):
    """The part of the contract that is about dead letters."""

    #: Whether what one process stores is there for others.
    outlives_its_process = True

    def test_dead_letters_are_listed_replayed_and_discarded(self, store: Store) -> None:
        self.send(store, b"1", b"2", b"3", priority=4)
        store.set_aside(receipts(store.reserve("c", ["q"], 3)), REJECTED, "because")
        letters = store.dead_letters("q")
        assert [letter.body for letter in letters] == [b"1", b"2", b"3"]
        assert {(letter.reason, letter.detail, letter.priority) for letter in letters} == {
            (REJECTED, "because", 4)
        }
        assert abs(letters[0].died_at - time.time()) < 60
        assert store.sizes("q") == Sizes(dead=3)
        assert store.dead_letters("unknown") == []
        assert len(store.dead_letters(limit=2)) == 2
        assert store.replay([letters[1].id]) == 1
        assert store.replay([letters[1].id]) == 0
        assert store.discard([letters[0].id, letters[1].id]) == 1
        assert store.sizes("q") == Sizes(ready=1, dead=1)
        again = store.reserve("c", ["q"], 5)
        assert [(d.body, d.priority, d.deliveries) for d in again] == [(b"2", 4, 1)]

    def test_all_are_yielded_once_page_after_page(self, store: Store) -> None:
        mine = [b"%d" % number for number in range(PAGE + 3)]
        bury(store, *mine)
        bury(store, b"elsewhere", queue="other")
        assert [letter.body for letter in store.each_dead_letter("q")] == mine
        assert [letter.body for letter in store.each_dead_letter()] == [*mine, b"elsewhere"]
        assert list(store.each_dead_letter("unknown")) == []

    def test_a_page_goes_on_where_the_last_one_ended_though_that_is_gone(self, store: Store) -> None:
        bury(store, b"1", b"2", b"3", b"4")
        first = store.dead_letters("q", 2)
        store.discard([letter.id for letter in first])
        assert [letter.body for letter in store.dead_letters("q", 2, first[-1])] == [b"3", b"4"]

    def test_dead_letters_are_found_by_their_ids(self, store: Store) -> None:
        bury(store, b"1", b"2", b"3")
        first, _, third = store.dead_letters()
        assert store.find_dead_letters([str(third.id), first.id, "no such id", "9" * 30]) == [first, third]
        assert store.find_dead_letters([]) == []

    def test_a_large_one_is_read_in_part(self, store: Store) -> None:
        body = b"0123456789" * (SHOWN // 5)
        bury(store, body, b"")
        large, empty = store.dead_letters()
        assert (large.body, large.size) == (body[:SHOWN], len(body))
        assert (empty.body, empty.size) == (b"", 0)
        assert store.replay([large.id]) == 1
        assert bodies(store.reserve("c", ["q"], 1)) == [body]

    def test_a_detail_may_have_lines(self, store: Store) -> None:
        detail = "ValueError: no\nTraceback (most recent call last):\n  \u00e9\U0001f600 %s"
        bury(store, b"1", detail=detail)
        assert store.dead_letters()[0].detail == detail

    def test_a_detail_tells_of_an_error_whose_text_no_store_can_hold(self, store: Store) -> None:
        bury(store, b"1", detail=validity.text_of(ValueError("half a pair: \udcff")))
        assert store.dead_letters()[0].detail == "ValueError: half a pair: ?"

    def test_dead_letters_are_kept_for_a_time(self, store: Store) -> None:
        bury(store, *(b"%d" % number for number in range(PAGE + 3)))
        assert store.expire_dead_letters(["q"], 60.0, 1_000) == 0
        assert store.sizes("q") == Sizes(dead=PAGE + 3)

        def expired() -> bool:
            store.expire_dead_letters([], 0.05, 1_000)
            return store.sizes("q") == Sizes()

        eventually(expired)

    def test_a_queue_keeps_so_many_of_them_and_the_youngest(self, store: Store) -> None:
        bury(store, *(b"%d" % number for number in range(PAGE + 5)))
        bury(store, b"1", b"2", b"3", queue="other")
        assert store.expire_dead_letters(["q", "unknown"], 60.0, 2) == PAGE
        assert store.sizes("q") == Sizes(dead=5)  # a page at a time, for a lease may be due in between
        assert store.expire_dead_letters(["q", "unknown"], 60.0, 2) == 3
        assert store.expire_dead_letters(["q", "unknown"], 60.0, 2) == 0
        assert [letter.body for letter in store.dead_letters("q")] == [
            b"%d" % n for n in (PAGE + 3, PAGE + 4)
        ]
        assert store.sizes("other") == Sizes(dead=3)

    @pytest.mark.slow  # as many processes as there are lines
    def test_whoever_dies_replaying_leaves_each_once(self, store: Store) -> None:
        if not self.outlives_its_process:
            pytest.skip("what is in this process dies with it")
        for lines in range(1_000):
            bury(store, b"1", b"2", b"3")
            ids = [letter.id for letter in store.dead_letters()]
            died = dies(partial(_replaying, store, [ids[0], ids[2]]), lines)
            dead = [letter.body for letter in store.dead_letters()]
            taken = store.reserve("c", ["q"], 5)
            assert sorted([*dead, *bodies(taken)]) == [b"1", b"2", b"3"], f"died after {lines} lines"
            assert b"2" in dead
            if not died:
                assert dead == [b"2"]
                return
            store.acknowledge(receipts(taken))
            store.discard(ids)
        pytest.fail("it never ended")
