"""What every leased store has to do with marks, and with what is sent with a step of one."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

from broker_profiles.transports.store import Outgoing, Sizes, Step, Store
from tests.stores.storing import StoreFixtures, bodies, eventually


class MarkContract(StoreFixtures):
    """The part of the contract that is about marks."""

    def test_a_step_sends_its_messages(self, store: Store, other: Store) -> None:
        assert store.marks(["m", "n"]) == {}
        assert store.advance(Step("m", None, "1"))
        assert store.advance(Step("m", "1", "2"), [Outgoing("q", b"a", 4), Outgoing("q", b"b")])
        assert other.marks(["m", "n"]) == {"m": "2"}
        assert other.marks([]) == {}
        taken = other.reserve("c", ["q"], 5)
        assert [(each.body, each.priority, each.deliveries) for each in taken] == [(b"a", 4, 1), (b"b", 0, 1)]

    def test_a_step_from_what_is_past_does_nothing(self, store: Store, other: Store) -> None:
        assert store.advance(Step("m", None, "1"))
        assert other.advance(Step("m", "1", "2"))
        for seen in ("1", "0", None):
            assert not store.advance(Step("m", seen, "3"), [Outgoing("q", b"late")])
        assert not store.advance(Step("unknown", "1", "2"), [Outgoing("q", b"late")])
        assert store.marks(["m", "unknown"]) == {"m": "2"}
        assert store.sizes("q") == Sizes()

    def test_a_step_that_is_taken_again_sends_nothing_more(self, store: Store, other: Store) -> None:
        first, second = Step("m", None, "1"), Step("m", "1", "2")
        for step in (first, second):
            for each in (store, other):
                assert each.advance(step, [Outgoing("q", step.value.encode())])
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1", b"2"]

    def test_a_step_makes_the_queues_it_sends_to(self, store: Store) -> None:
        assert store.advance(Step("m", None, "1"), [Outgoing("new", b"1"), Outgoing("newer", b"2")])
        assert store.exists("new")
        assert bodies(store.reserve("c", ["new", "newer"], 5)) == [b"1", b"2"]

    def test_what_a_step_sends_waits_and_expires_as_anything(self, store: Store) -> None:
        delayed, brief = Outgoing("q", b"later", delay=2.0), Outgoing("q", b"brief", expires=0.05)
        assert store.advance(Step("m", None, "1"), [delayed, brief])
        threading.Event().wait(0.1)
        assert store.reserve("c", ["q"], 5) == []
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 5))) == [b"later"]

    def test_who_waits_is_woken_by_a_step(self, store: Store, other: Store) -> None:
        message = Outgoing("q", b"1")
        timer = threading.Timer(0.2, lambda: other.advance(Step("m", None, "1"), [message]))
        timer.start()
        assert store.wait(["q"], 10)
        timer.join()
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"1"]

    def test_names_and_values_are_any_text(self, store: Store) -> None:
        name, value = "jede Stunde: {\u00e9t\u00e9} $set %s 'x' ", "2026-11-28T12:00:00+00:00 $1 \u2713"
        assert store.advance(Step(name, None, value))
        assert store.marks([name, name.rstrip()]) == {name: value}

    def test_of_many_who_take_one_step_one_succeeds(self, store: Store) -> None:
        """And so again and again, each from what the mark says then."""
        steps, takers = 20, 4
        barrier = threading.Barrier(takers)
        stores = [store.clone() for _ in range(takers)]

        def take(number: int) -> int:
            taken = 0
            for _ in range(steps):
                seen = stores[number].marks(["m"]).get("m")
                barrier.wait(30)
                value = f"{int((seen or '0').partition('.')[0]) + 1}.{number}"
                taken += stores[number].advance(Step("m", seen, value), [Outgoing("q", value.encode())])
                barrier.wait(30)
            return taken

        with ThreadPoolExecutor(takers) as threads:
            assert sum(threads.map(take, range(takers))) == steps
        for each in stores:
            each.close()
        sent = [body.partition(b".")[0] for body in bodies(store.reserve("c", ["q"], 100))]
        assert sent == [b"%d" % number for number in range(1, steps + 1)]

    def test_marks_that_nobody_uses_are_removed(self, store: Store, other: Store) -> None:
        for name in ("used", "stepped", "unused"):
            assert store.advance(Step(name, None, "1"))
        values = itertools.count(1)

        def removed() -> bool:
            value = next(values)
            assert store.advance(Step("stepped", str(value), str(value + 1)))
            other.keep_marks(["used", "unknown"], 2.0)
            return "unused" not in store.marks(["unused"])

        eventually(removed)
        assert store.marks(["used", "stepped", "unused", "unknown"]).keys() == {"used", "stepped"}
        assert not store.advance(Step("unused", "1", "2"), [Outgoing("q", b"late")])
        assert store.sizes("q") == Sizes()
        other.keep_marks([], 60)
        assert store.marks(["used"]) == {"used": "1"}
