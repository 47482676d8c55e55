"""The MongoDB store against the contract, and what its receipts are worth."""

from __future__ import annotations

import pytest

from broker_profiles.transports.store import Outgoing, Receipt, Sizes, Store
from tests.stores.contract import StoreContract
from tests.stores.storing import receipts, send

pytestmark = pytest.mark.server("mongodb")


class TestContract(StoreContract):
    """Nothing but the contract."""


class TestReceipts:
    def test_one_that_is_old_settles_nothing_even_beside_a_new_one(self, store: Store) -> None:
        send(store, b"1")
        old = receipts(store.reserve("c", ["q"], 1))
        store.release(old, counted=False)
        send(store, b"2")
        new = receipts(store.reserve("c", ["q"], 2))
        store.acknowledge([*old, new[1]])
        assert store.sizes("q") == Sizes(leased=1)
        store.acknowledge([new[0]])
        assert store.sizes("q") == Sizes()

    def test_one_that_was_never_given_settles_nothing(self, store: Store) -> None:
        send(store, b"1")
        store.reserve("c", ["q"], 1)
        store.acknowledge([Receipt("unknown", "unknown"), Receipt(1, 1)])
        assert store.sizes("q") == Sizes(leased=1)

    def test_names_and_details_may_look_like_expressions(self, store: Store) -> None:
        store.publish([Outgoing("$body", b"1")])
        taken = store.reserve("$consumer", ["$body"], 1)
        store.set_aside(receipts(taken), "$body", "$$NOW \ud800 \0" + "x" * 10_000)
        letter = store.dead_letters("$body")[0]
        assert letter.reason == "$body"
        assert letter.detail.startswith("$$NOW ? \0x")
        assert len(letter.detail) == 8000
