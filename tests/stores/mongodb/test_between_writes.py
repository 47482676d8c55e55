"""What the MongoDB store leaves when it is cut off between two writes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pymongo
import pytest

from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports.store import REJECTED, Outgoing, Sizes, Store
from tests.stores.mongodb.server import CutOff
from tests.stores.storing import OpenStore, bodies, eventually, receipts, send

pytestmark = pytest.mark.server("mongodb")


class TestBetweenTwoWrites:
    """Whatever is cut off where, nothing is lost."""

    def test_a_parcel_that_was_not_unpacked_is_unpacked_later(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, other: Store
    ) -> None:
        hasty = open_store(timeout_seconds=1.0)
        with hasty._link.use() as db:  # type: ignore[attr-defined]
            original = db.messages.insert_many

            def insert_one_and_die(messages: Any, **_: Any) -> None:
                original(messages[:1])
                raise pymongo.errors.AutoReconnect("cut off")

            monkeypatch.setattr(db.messages, "insert_many", insert_one_and_die)
        with pytest.raises(StoreUnavailable, match="cut off"):
            send(hasty, b"1", b"2", b"3")
        assert other.sizes("q") == Sizes(ready=1)

        def complete() -> bool:
            other.renew("c", ["q"])
            return other.sizes("q") == Sizes(ready=3)

        eventually(complete)
        assert bodies(other.reserve("c", ["q"], 5)) == [b"1", b"2", b"3"]
        with hasty._link.use() as db:  # type: ignore[attr-defined]
            assert db.parcels.count_documents({}) == 0
        hasty.close()

    def test_a_parcel_that_was_not_stored_leaves_nothing(self, store: Store, cut_off: CutOff) -> None:
        cut_off.at("parcels", "insert_one")
        with pytest.raises(StoreUnavailable):
            send(store, b"1", b"2")
        assert store.sizes("q") == Sizes()

    def test_a_parcel_that_was_not_removed_does_no_harm(self, store: Store, cut_off: CutOff) -> None:
        cut_off.at("parcels", "delete_one")
        with pytest.raises(StoreUnavailable):
            send(store, b"1", b"2")
        with store._link.use() as db:  # type: ignore[attr-defined]
            db.parcels.update_many({}, {"$set": {"due": 0}})
        store.renew("c", ["q"])
        assert store.sizes("q") == Sizes(ready=2)

    @pytest.mark.parametrize("done", [False, True])
    @pytest.mark.parametrize(
        ("count", "method"), [(1, "find_one_and_update"), (2, "update_many"), (2, "find")]
    )
    def test_a_claim_without_an_answer_is_undone(
        self, store: Store, other: Store, cut_off: CutOff, count: int, method: str, done: bool
    ) -> None:
        sent = [b"%d" % number for number in range(count)]
        for body in sent:
            send(other, body)
        cut_off.at("messages", method, done=done)
        with pytest.raises(StoreUnavailable):
            store.reserve("c", ["q"], 5)
        taken = store.reserve("c", ["q"], 5)
        assert bodies(taken) == sent
        assert {delivery.deliveries for delivery in taken} == {1}
        assert store.reserve("c", ["q"], 5, receipts(taken)) == []
        assert store.sizes("q") == Sizes()

    def test_the_end_of_a_lease_is_begun_again(self, store: Store, other: Store, cut_off: CutOff) -> None:
        send(store, b"1", b"2")
        other.renew("dead", ["q"])
        other.reserve("dead", ["q"], 5)
        cut_off.at("messages", "update_many")

        def failed() -> bool:
            try:
                store.renew("alive", ["q"])
            except StoreUnavailable:
                return True
            return False

        eventually(failed)
        assert store.sizes("q") == Sizes(leased=2)
        assert not other.renew("dead", ["q"])
        store.renew("alive", ["q"])
        assert bodies(store.reserve("alive", ["q"], 5)) == [b"1", b"2"]

    def test_forgetting_half_is_completed_by_others(
        self, store: Store, other: Store, cut_off: CutOff
    ) -> None:
        send(store, b"1")
        store.renew("c", ["q"])
        store.reserve("c", ["q"], 5)
        cut_off.at("messages", "update_many")
        with pytest.raises(StoreUnavailable):
            store.forget("c")
        other.renew("d", ["q"])
        assert bodies(other.reserve("d", ["q"], 5)) == [b"1"]

    def test_a_claim_after_the_end_of_its_lease_needs_another(
        self, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(store, b"1")
        store.renew("slow", ["q"])
        look = store._look  # type: ignore[attr-defined]
        leases = []

        def slow_look(*arguments: Any) -> Any:
            seen = look(*arguments)
            leases.append(seen.lease)
            ends = time.monotonic() + (1.4 if len(leases) == 1 else 0)
            while time.monotonic() < ends:
                other.renew("alive", ["q"])
                threading.Event().wait(0.1)
            return seen

        monkeypatch.setattr(store, "_look", slow_look)
        taken = store.reserve("slow", ["q"], 1)
        assert leases[0] is not None
        assert leases[1] is None
        other.renew("alive", ["q"])
        assert other.sizes("q") == Sizes(leased=1)
        assert taken[0].deliveries == 1
        store.acknowledge(receipts(taken))
        assert other.sizes("q") == Sizes()

    def test_where_nobody_renewed_the_server_was_away_and_leases_go_on(
        self, store: Store, other: Store
    ) -> None:
        send(store, b"1")
        store.renew("c", ["q"])
        taken = store.reserve("c", ["q"], 1)
        threading.Event().wait(1.2)
        other.renew("d", ["q"])
        assert other.sizes("q") == Sizes(leased=1)
        assert store.renew("c", ["q"])
        store.acknowledge(receipts(taken))
        assert store.sizes("q") == Sizes()

    def test_what_is_claimed_just_when_its_lease_ends_is_given_back(self, store: Store) -> None:
        send(store, b"1")
        store.reserve("c", ["q"], 1)
        with store._link.use() as db:  # type: ignore[attr-defined]
            held = db.messages.find_one({})
            store.forget("c")
            assert store.sizes("q") == Sizes(ready=1)
            db.messages.replace_one({"_id": held["_id"]}, held)
        assert store.sizes("q") == Sizes(leased=1)
        store.renew("d", ["q"])
        assert store.sizes("q") == Sizes(ready=1)

    def test_dead_letters_survive_a_replay_that_fails(self, store: Store, cut_off: CutOff) -> None:
        send(store, b"1", b"2")
        store.set_aside(receipts(store.reserve("c", ["q"], 5)), REJECTED)
        ids = [letter.id for letter in store.dead_letters("q")]
        cut_off.at("messages", "bulk_write")
        with pytest.raises(StoreUnavailable):
            store.replay(ids)
        assert store.sizes("q") == Sizes(dead=2)
        assert store.replay(ids) == 2
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1", b"2"]

    @pytest.mark.parametrize("look", [1, 2, 3])
    def test_two_that_trim_at_once_leave_what_a_queue_keeps(
        self, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, look: int
    ) -> None:
        send(store, *(b"%d" % number for number in range(10)))
        store.set_aside(receipts(store.reserve("c", ["q"], 10)), REJECTED)
        looks: list[int] = []

        def trimmed_before(original: Any) -> Any:
            def looked(*args: Any, **kwargs: Any) -> Any:
                looks.append(1)
                if len(looks) == look:
                    assert other.expire_dead_letters(["q"], 60.0, 6) == 4
                return original(*args, **kwargs)

            return looked

        with store._link.use() as db:  # type: ignore[attr-defined]
            for method in ("count_documents", "find"):
                monkeypatch.setattr(db.messages, method, trimmed_before(getattr(db.messages, method)))
        store.expire_dead_letters(["q"], 60.0, 6)
        assert len(looks) >= look
        assert sorted(letter.body for letter in other.dead_letters()) == [b"4", b"5", b"6", b"7", b"8", b"9"]

    def test_a_queue_that_is_half_dropped_is_still_known(self, store: Store, cut_off: CutOff) -> None:
        store.bind("x", "", "q")
        send(store, b"1")
        cut_off.at("messages", "delete_many")
        with pytest.raises(StoreUnavailable):
            store.drop("q")
        assert store.exists("q")
        store.drop("q")
        assert not store.exists("q")
        assert store.sizes("q") == Sizes()
        assert store.bindings("x") == []

    def test_a_queue_that_is_declared_again_while_it_expires_stays(
        self, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.declare("brief", expires=0.2, message_ttl=None)
        store.bind("x", "", "brief")
        store.publish([Outgoing("brief", b"old")])
        threading.Event().wait(0.3)
        remove = store._remove  # type: ignore[attr-defined]

        def meanwhile(query: Any) -> int:
            other.declare("brief", expires=0.2, message_ttl=None)
            other.bind("x", "", "brief")
            other.publish([Outgoing("brief", b"new")])
            return int(remove(query))

        monkeypatch.setattr(store, "_remove", meanwhile)
        store.renew("c", [])
        assert store.exists("brief")
        assert store.bindings("x") == [("", "brief")]
        assert bodies(store.reserve("c", ["brief"], 5)) == [b"new"]
