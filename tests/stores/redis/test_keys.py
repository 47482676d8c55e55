"""What the Redis store keeps in its server, and how it does with much of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from broker_profiles.transports.store import REJECTED, Sizes, Store
from tests.stores.storing import OpenStore, StoreFixtures, bodies, eventually, receipts, send

pytestmark = pytest.mark.server("redis")


class TestKeys(StoreFixtures):
    def work(self, store: Store, count: int) -> None:
        for number in range(count // 5):
            send(store, b"1", priority=number % 10)
            send(store, b"2", delay=0.001, expires=60)
            send(store, b"3", b"4", b"5", expires=60)
        settled = 0
        acknowledge: Any = ()
        while settled < count:
            taken = store.reserve("c", ["q"], 64, acknowledge)
            returned = [each for each in taken if each.body == b"4" and each.deliveries == 1]
            store.release(receipts(returned), counted=True)
            acknowledge = [each.receipt for each in taken if each not in returned]
            settled += len(acknowledge)
        store.acknowledge(acknowledge)
        store.forget("c")

    def test_nothing_grows(self, store: Store, admin: Any) -> None:
        def state() -> dict[bytes, int]:
            store.renew("d", ["q"])
            store.forget("d")
            return {key: admin.memory_usage(key) for key in admin.keys("*")}

        self.work(store, 100)
        # What it swept last may be remembered for a while.
        admin.zrem("{broker-profiles}:sweeps", "q")
        before = state()
        self.work(store, 1000)
        admin.zrem("{broker-profiles}:sweeps", "q")
        assert state() == before

    def test_every_key_has_the_prefix(self, store: Store, admin: Any) -> None:
        admin.rpush("q", "of somebody else")
        self.work(store, 50)
        store.bind("x", "key", "q")
        store.declare("e", expires=60, message_ttl=1)
        send(store, b"1", b"2", delay=60)
        store.set_aside(receipts(store.reserve("c", ["q"], 1)), REJECTED)
        assert store.purge("q") == 2
        assert {key for key in admin.keys("*") if not key.startswith(b"{broker-profiles}:")} == {b"q"}
        store.drop("q")
        assert admin.lrange("q", 0, -1) == [b"of somebody else"]

    def test_another_prefix_is_another_store(self, store: Store, open_store: OpenStore) -> None:
        other = open_store(key_prefix="staging")
        send(other, b"1")
        assert store.reserve("c", ["q"], 1) == []
        assert bodies(other.reserve("c", ["q"], 1)) == [b"1"]
        other.close()

    def test_old_receipts_are_worthless_after_data_was_lost(self, store: Store, admin: Any) -> None:
        send(store, b"1")
        old = receipts(store.reserve("c", ["q"], 1))
        admin.flushdb()
        send(store, b"2")
        new = receipts(store.reserve("c", ["q"], 1))
        assert old[0].message == new[0].message
        store.acknowledge(old)
        store.release(old, counted=False)
        store.set_aside(old, REJECTED)
        assert store.reserve("c", ["q"], 1, old) == []
        assert store.sizes("q") == Sizes(leased=1)


class TestMany(StoreFixtures):
    def test_delayed_messages_do_not_slow_an_immediate_one(self, store: Store, admin: Any) -> None:
        def work() -> float:
            began = time.perf_counter()
            for _ in range(50):
                send(store, b"now")
                store.acknowledge(receipts(store.reserve("c", ["q"], 5)))
            return time.perf_counter() - began

        alone = min(work() for _ in range(5))
        for _ in range(100):
            send(store, *[b"later"] * 1000, delay=3600, priority=9)
        assert store.sizes("q") == Sizes(delayed=100_000)
        # Not at every try: the machine may be busy with other things.
        eventually(lambda: min(work() for _ in range(5)) < 3 * alone + 0.05, 30)
        assert store.purge("q") == 100_000

    def test_many_that_are_due_at_once_come_in_batches(self, store: Store) -> None:
        send(store, *[b"%d" % number for number in range(2500)], delay=0.01)
        taken: list[bytes] = []
        acknowledge: Any = ()
        while len(taken) < 2500:
            store.wait(["q"], 10)
            got = store.reserve("c", ["q"], 300, acknowledge)
            taken += bodies(got)
            acknowledge = receipts(got)
        assert sorted(map(int, taken)) == list(range(2500))

    def test_a_heap_of_expired_messages_hides_none(self, store: Store) -> None:
        send(store, *[b"short"] * 25_000, expires=0.001, priority=9)
        send(store, b"long")
        threading.Event().wait(0.1)
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"long"]

    def test_expired_messages_that_nobody_asks_for_go(self, store: Store, admin: Any) -> None:
        send(store, *[b"short"] * 1500, expires=0.01)
        send(store, b"later", delay=60, expires=0.01)
        send(store, b"long", expires=60)

        def swept() -> bool:
            store.renew("elsewhere", [])
            return store.sizes("q") == Sizes(ready=1)

        eventually(swept)
        assert admin.hlen("{broker-profiles}:bodies:q") == 1

    def test_a_dead_consumer_that_held_many_is_ended_in_batches(self, store: Store) -> None:
        send(store, *[b"1"] * 2500)
        store.renew("dead", ["q"])
        held = store.reserve("dead", ["q"], 2500)

        def given_back() -> bool:
            store.renew("alive", ["q"])
            return store.sizes("q") == Sizes(ready=2500)

        eventually(given_back)
        store.acknowledge(receipts(held))
        assert store.sizes("q") == Sizes(ready=2500)

    def test_purging_leaves_what_is_leased(self, store: Store) -> None:
        send(store, *[b"%d" % number for number in range(3000)])
        held = store.reserve("c", ["q"], 1500)
        send(store, b"later", delay=60)
        assert store.purge("q") == 1501
        assert store.sizes("q") == Sizes(leased=1500)
        store.release(receipts(held[:1]), counted=False)
        assert bodies(store.reserve("c", ["q"], 5, receipts(held[1:]))) == [b"0"]

    def test_one_message_wakes_one_and_many_wake_all(self, store: Store) -> None:
        stores = [store.clone() for _ in range(3)]
        taken: list[bytes] = []
        woken: list[int] = []

        def consume(number: int) -> None:
            stores[number].wait(["q"], 10)
            woken.append(number)
            taken.extend(bodies(stores[number].reserve(f"c{number}", ["q"], 1)))

        threads = [threading.Thread(target=consume, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.5)
        send(store, b"1")
        eventually(lambda: taken)
        threading.Event().wait(0.2)
        assert len(woken) == 1
        began = time.monotonic()
        send(store, b"2", b"3")
        for thread in threads:
            thread.join(20)
        assert time.monotonic() - began < 1.9  # who is not woken looks again after 2
        assert sorted(taken) == [b"1", b"2", b"3"]
        for each in stores:
            each.close()

    def test_one_that_is_due_sooner_shortens_the_wait(self, store: Store, other: Store) -> None:
        send(store, b"later", delay=60)
        timer = threading.Timer(0.2, lambda: send(other, b"soon", delay=0.2))
        began = time.monotonic()
        timer.start()
        store.wait(["q"], 10)
        assert 0.35 < time.monotonic() - began < 1.9
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"soon"]
        timer.join()


class TestDeadLetters(StoreFixtures):
    def bury(self, store: Store) -> int | str:
        send(store, b"1")
        store.set_aside(receipts(store.reserve("c", ["q"], 1)), REJECTED)
        return store.dead_letters()[-1].id

    def test_none_is_read_to_learn_how_old_it_is(self, store: Store, admin: Any) -> None:
        admin.hset("{broker-profiles}:dead", self.bury(store), b"what nobody can read")
        assert store.expire_dead_letters(["q"], 60.0, 10) == 0
        assert store.sizes("q") == Sizes(dead=1)

    def test_one_of_an_earlier_version_is_read_once(self, store: Store, admin: Any) -> None:
        first = self.bury(store)
        record = admin.hget("{broker-profiles}:dead", first)
        admin.delete("{broker-profiles}:dead:at")
        assert store.expire_dead_letters(["q"], 60.0, 10) == 0
        admin.hset("{broker-profiles}:dead", first, b"what nobody can read")
        assert store.expire_dead_letters(["q"], 60.0, 10) == 0
        admin.hset("{broker-profiles}:dead", first, record)
        eventually(lambda: store.expire_dead_letters(["q"], 0.05, 10) == 1)
        assert admin.keys("*:dead*") == []

    def test_one_whose_record_is_lost_is_forgotten(self, store: Store, admin: Any) -> None:
        for seconds, kept in ((0.05, 10), (60.0, 0)):
            admin.hdel("{broker-profiles}:dead", self.bury(store))
            admin.delete("{broker-profiles}:dead:at")
            store.expire_dead_letters(["q"], seconds, kept)
            store.expire_dead_letters(["q"], 60.0, 0)
            assert admin.keys("*:dead*") == []
