"""What every leased store has to do, written once; a store's own tests subclass `StoreContract`.

A subclass has a fixture `open_store` that returns a function `open_store(**options) -> Store`, each call
another connection to one storage that is empty when the test begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from broker_profiles.transports.store import (
    Outgoing,
    Receipt,
    Sizes,
    Store,
)
from tests.stores.contract_dead_letters import DeadLetterContract
from tests.stores.contract_leases import LeaseContract
from tests.stores.contract_marks import MarkContract
from tests.stores.storing import bodies, eventually, receipts

OpenStore = Callable[..., Store]


class StoreContract(LeaseContract, DeadLetterContract, MarkContract):
    """The whole contract."""

    # -- order ------------------------------------------------------------------------------------

    def test_first_in_first_out(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        self.send(store, b"3")
        assert bodies(store.reserve("c", ["q"], 10)) == [b"1", b"2", b"3"]

    def test_limit_is_kept_and_the_rest_stays(self, store: Store) -> None:
        self.send(store, b"1", b"2", b"3")
        assert bodies(store.reserve("c", ["q"], 2)) == [b"1", b"2"]
        assert bodies(store.reserve("c", ["q"], 2)) == [b"3"]

    def test_nine_comes_before_zero(self, store: Store) -> None:
        for priority in (0, 9, 5, 0, 9):
            self.send(store, b"%d" % priority, priority=priority)
        assert bodies(store.reserve("c", ["q"], 10)) == [b"9", b"9", b"5", b"0", b"0"]

    def test_queues_are_taken_in_the_order_given(self, store: Store) -> None:
        store.declare("other", expires=None, message_ttl=None)
        self.send(store, b"q1", b"q2")
        store.publish([Outgoing("other", b"o1")])
        assert bodies(store.reserve("c", ["other", "q"], 2)) == [b"o1", b"q1"]
        assert store.reserve("c", ["unknown"], 1) == []

    def test_any_bytes_come_back_as_they_were(self, store: Store) -> None:
        body = bytes(range(256)) * 4096
        self.send(store, body, b"")
        assert bodies(store.reserve("c", ["q"], 2)) == [body, b""]

    def test_publishing_to_an_unknown_queue_makes_it(self, store: Store) -> None:
        store.publish([Outgoing("new", b"1")])
        store.publish([Outgoing("newer", b"2"), Outgoing("newest", b"3")])
        assert store.exists("new")
        assert bodies(store.reserve("c", ["new", "newer", "newest"], 9)) == [b"1", b"2", b"3"]

    # -- time -------------------------------------------------------------------------------------

    def test_delayed_messages_wait_and_keep_their_priority(self, store: Store) -> None:
        self.send(store, b"later", delay=0.6, priority=9)
        self.send(store, b"now")
        assert store.sizes("q") == Sizes(ready=1, delayed=1)
        assert bodies(store.reserve("c", ["q"], 5)) == [b"now"]
        sent = time.monotonic()
        taken = eventually(lambda: store.reserve("c", ["q"], 5))
        assert bodies(taken) == [b"later"]
        assert taken[0].priority == 9
        assert time.monotonic() - sent > 0.3

    def test_expired_messages_are_dropped(self, store: Store) -> None:
        self.send(store, b"short", expires=0.05)
        self.send(store, b"long", expires=60)
        threading.Event().wait(0.1)
        assert bodies(store.reserve("c", ["q"], 5)) == [b"long"]
        assert store.sizes("q") == Sizes(leased=1)

    def test_message_ttl_of_a_queue(self, store: Store) -> None:
        store.declare("brief", expires=None, message_ttl=0.05)
        store.publish([Outgoing("brief", b"1")])
        threading.Event().wait(0.1)
        assert store.reserve("c", ["brief"], 5) == []

    def test_unused_queues_expire_with_their_bindings(self, store: Store) -> None:
        store.declare("used", expires=0.5, message_ttl=None)
        store.declare("unused", expires=0.5, message_ttl=None)
        store.bind("x", "", "used")
        store.bind("x", "", "unused")

        def gone() -> bool:
            store.renew("c", ["used"])
            return not store.exists("unused")

        eventually(gone)
        assert store.exists("used")
        assert store.bindings("x") == [("", "used")]

    def test_waiting_ends_when_a_message_comes(self, store: Store, other: Store) -> None:
        timer = threading.Timer(0.2, lambda: self.send(other, b"1"))
        began = time.monotonic()
        timer.start()
        assert store.wait(["q"], 10)
        assert time.monotonic() - began < 5
        timer.join()
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"1"]

    def test_waiting_ends_when_a_message_is_due(self, store: Store) -> None:
        self.send(store, b"1", delay=0.3)
        began = time.monotonic()
        assert store.wait(["q"], 10)
        assert 0.1 < time.monotonic() - began < 5

    def test_waiting_ends_after_its_time(self, store: Store) -> None:
        began = time.monotonic()
        assert not store.wait(["q"], 0.2)
        assert 0.15 < time.monotonic() - began < 3

    # -- queues -----------------------------------------------------------------------------------

    def test_bindings(self, store: Store, other: Store) -> None:
        store.declare("r", expires=None, message_ttl=None)
        store.bind("x", "key", "q")
        store.bind("x", "key", "q")
        store.bind("x", "key", "r")
        assert sorted(other.bindings("x")) == [("key", "q"), ("key", "r")]
        store.unbind("x", "key", "q")
        assert other.bindings("x") == [("key", "r")]
        store.drop("r")
        assert other.bindings("x") == []
        assert not other.exists("r")

    def test_purge_takes_ready_and_delayed(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        store.reserve("c", ["q"], 1)
        self.send(store, b"3", delay=60)
        assert store.purge("q") == 2
        assert store.sizes("q") == Sizes(leased=1)
        assert store.purge("unknown") == 0

    def test_dropping_a_queue_takes_its_messages(self, store: Store) -> None:
        self.send(store, b"1")
        store.drop("q")
        store.declare("q", expires=None, message_ttl=None)
        assert store.sizes("q") == Sizes()

    # -- many at once -----------------------------------------------------------------------------

    def test_many_consumers_get_each_message_once(self, store: Store, other: Store) -> None:
        expected = {b"%d" % number for number in range(400)}
        seen: list[bytes] = []

        def consume(name: str, mine: Store) -> None:
            mine.renew(name, ["q"])
            settled: list[Receipt] = []
            while len(seen) < len(expected):
                taken = mine.reserve(name, ["q"], 7, settled)
                seen.extend(bodies(taken))
                settled = receipts(taken)
            mine.acknowledge(settled)

        stores = [store.clone() for _ in range(3)]
        threads = [threading.Thread(target=consume, args=(f"c{i}", s)) for i, s in enumerate(stores)]
        for thread in threads:
            thread.start()
        for body in sorted(expected):
            self.send(other, body)
        for thread in threads:
            thread.join(60)
        for each in stores:
            each.close()
        assert sorted(seen) == sorted(expected)
        assert store.sizes("q") == Sizes()

    def test_the_version_is_known(self, store: Store) -> None:
        assert store.version()[0].isdigit()
