"""What every leased store has to do with what it has delivered: settling, and the end of leases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from broker_profiles.transports.store import (
    DELIVERIES_EXHAUSTED,
    REJECTED,
    Delivery,
    Sizes,
    Store,
)
from tests.stores.storing import StoreFixtures, bodies, eventually, receipts

OpenStore = Callable[..., Store]


class LeaseContract(StoreFixtures):
    """The part of the contract that is about deliveries."""

    # -- settling ---------------------------------------------------------------------------------

    def test_what_is_leased_is_nobody_elses(self, store: Store, other: Store) -> None:
        self.send(store, b"1")
        delivery = store.reserve("c", ["q"], 1)[0]
        assert delivery.deliveries == 1
        assert other.reserve("d", ["q"], 1) == []

    def test_acknowledged_is_gone(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        store.acknowledge(receipts(store.reserve("c", ["q"], 2)))
        assert store.sizes("q") == Sizes()

    def test_reserving_acknowledges_in_the_same_step(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        first = store.reserve("c", ["q"], 1)
        second = store.reserve("c", ["q"], 1, receipts(first))
        assert bodies(second) == [b"2"]
        assert store.sizes("q") == Sizes(leased=1)
        assert store.reserve("c", ["q"], 1, receipts(second)) == []
        assert store.sizes("q") == Sizes()

    def test_acknowledging_twice_is_harmless(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        taken = store.reserve("c", ["q"], 1)
        store.acknowledge(receipts(taken))
        store.acknowledge(receipts(taken))
        assert store.sizes("q") == Sizes(ready=1)

    def test_released_returns_to_its_old_place(self, store: Store) -> None:
        self.send(store, b"1", b"2", b"3")
        taken = store.reserve("c", ["q"], 2)
        store.release(receipts(taken), counted=True)
        again = store.reserve("c", ["q"], 3)
        assert bodies(again) == [b"1", b"2", b"3"]
        assert [delivery.deliveries for delivery in again] == [2, 2, 1]

    def test_released_uncounted_forgets_the_delivery_but_not_the_fence(self, store: Store) -> None:
        self.send(store, b"1")
        old = store.reserve("c", ["q"], 1)
        store.release(receipts(old), counted=False)
        new = store.reserve("d", ["q"], 1)
        assert new[0].deliveries == 1
        store.acknowledge(receipts(old))
        assert store.sizes("q") == Sizes(leased=1)
        store.release(receipts(old), counted=True)
        store.set_aside(receipts(old), REJECTED)
        assert store.sizes("q") == Sizes(leased=1)

    def test_a_receipt_is_worth_nothing_after_its_release(self, store: Store) -> None:
        self.send(store, b"1")
        old = store.reserve("c", ["q"], 1)
        store.release(receipts(old), counted=False)
        store.acknowledge(receipts(old))
        store.set_aside(receipts(old), REJECTED)
        store.release(receipts(old), counted=True)
        assert store.sizes("q") == Sizes(ready=1)
        assert store.reserve("c", ["q"], 1)[0].deliveries == 1

    # -- leases -----------------------------------------------------------------------------------

    def test_a_lease_that_ends_gives_the_messages_back(self, store: Store, other: Store) -> None:
        store.renew("dead", ["q"])
        self.send(store, b"1", b"2")
        old = store.reserve("dead", ["q"], 1)

        def reserved_again() -> list[Delivery]:
            other.renew("alive", ["q"])
            return [d for d in other.reserve("alive", ["q"], 5) if d.body == b"1"]

        again = eventually(reserved_again, self.LEASE + 5)
        assert again[0].deliveries == 2
        store.acknowledge(receipts(old))
        assert other.sizes("q").leased == 2
        assert store.renew("dead", ["q"]) is False

    def test_a_renewed_lease_does_not_end(self, store: Store, other: Store) -> None:
        store.renew("c", ["q"])
        self.send(store, b"1")
        taken = store.reserve("c", ["q"], 1)
        ends = time.monotonic() + 3 * self.LEASE
        while time.monotonic() < ends:
            assert store.renew("c", ["q"]) is True
            other.renew("d", ["q"])
            assert other.reserve("d", ["q"], 1) == []
            threading.Event().wait(self.LEASE / 5)
        store.acknowledge(receipts(taken))
        assert store.sizes("q") == Sizes()

    def test_a_first_renewal_leaves_what_is_reserved_beside_it(self, store: Store, other: Store) -> None:
        for number in range(20):
            consumer, gate = f"c{number}", threading.Barrier(2)

            def renew(consumer: str = consumer, gate: threading.Barrier = gate) -> None:
                gate.wait(10)
                other.renew(consumer, ["q"])

            self.send(store, b"1", b"2")
            keeper = threading.Thread(target=renew)
            keeper.start()
            gate.wait(10)
            taken = store.reserve(consumer, ["q"], 2)
            keeper.join(20)
            assert store.sizes("q") == Sizes(leased=2)
            store.acknowledge(receipts(taken))
            store.forget(consumer)
        assert store.sizes("q") == Sizes()

    def test_forgetting_a_consumer_gives_back_at_once(self, store: Store, other: Store) -> None:
        store.renew("c", ["q"])
        self.send(store, b"1")
        store.reserve("c", ["q"], 1)
        store.forget("c")
        assert other.reserve("d", ["q"], 1)[0].deliveries == 1

    def test_too_many_deliveries_make_a_dead_letter(self, store: Store) -> None:
        self.send(store, b"poison", b"good", priority=3)
        for _ in range(3):
            taken = store.reserve("c", ["q"], 1)
            assert bodies(taken) == [b"poison"]
            store.release(receipts(taken), counted=True)
        assert bodies(store.reserve("c", ["q"], 1)) == [b"good"]
        letters = store.dead_letters("q")
        assert [(letter.body, letter.reason, letter.deliveries) for letter in letters] == [
            (b"poison", DELIVERIES_EXHAUSTED, 3)
        ]
