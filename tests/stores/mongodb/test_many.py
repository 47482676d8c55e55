"""Much at once, large messages, and the processes that share a store in MongoDB."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import pytest

from broker_profiles.errors import StoreError, StoreUnavailable
from broker_profiles.transports import mongodb
from broker_profiles.transports.mongodb_database import LARGEST
from broker_profiles.transports.store import REJECTED, Sizes, Store
from tests.stores.storing import bodies, receipts, send

pytestmark = pytest.mark.server("mongodb")


class TestManyAtOnce:
    def test_a_thousand_that_are_due_and_more_come_in_batches(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("broker_profiles.transports.mongodb_database.BATCH", 20)
        send(store, *[b"%d" % number for number in range(50)], delay=0.01)
        taken: list[bytes] = []
        acknowledge: Any = ()
        while len(taken) < 50:
            assert store.wait(["q"], 10)
            got = store.reserve("c", ["q"], 100, acknowledge)
            taken += bodies(got)
            acknowledge = receipts(got)
        assert sorted(map(int, taken)) == list(range(50))

    def test_purging_goes_on_to_the_end(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("broker_profiles.transports.mongodb_database.BATCH", 20)
        send(store, *[b"1"] * 40)
        assert store.purge("q") == 40

    def test_expired_and_spent_messages_hide_none(self, store: Store) -> None:
        send(store, *[b"short"] * 5, expires=0.05, priority=9)
        send(store, *[b"poison"] * 2, priority=5)
        for _ in range(3):
            poison = [d for d in store.reserve("c", ["q"], 7) if d.body == b"poison"]
            store.release(receipts(poison), counted=True)
        send(store, *[b"short"] * 5, expires=0.05, priority=9)
        send(store, b"long")
        threading.Event().wait(0.1)
        assert bodies(store.reserve("c", ["q"], 2)) == [b"long"]
        assert store.sizes("q").dead == 2

    def test_threads_that_send_keep_their_own_order(self, store: Store) -> None:
        clones = [store.clone() for _ in range(3)]

        def sending(number: int) -> None:
            for count in range(10):
                send(clones[number], b"%d:%d" % (number, count))

        threads = [threading.Thread(target=sending, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        taken = bodies(store.reserve("c", ["q"], 100))
        for number in range(3):
            mine = [int(body.split(b":")[1]) for body in taken if body.startswith(b"%d:" % number)]
            assert mine == list(range(10))
        for each in clones:
            each.close()


class TestSize:
    def test_the_largest_body_goes_all_the_way(self, store: Store) -> None:
        body = os.urandom(1024) * (LARGEST // 1024)
        send(store, body)
        taken = store.reserve("c", ["q"], 1)
        assert bodies(taken) == [body]
        store.set_aside(receipts(taken), REJECTED, "x" * 100_000)
        assert store.replay([letter.id for letter in store.dead_letters("q")]) == 1
        assert bodies(store.reserve("c", ["q"], 1)) == [body]

    @pytest.mark.parametrize("sent", [[LARGEST + 1], [LARGEST // 2] * 3])
    def test_a_larger_one_is_refused_in_words(self, store: Store, sent: list[int]) -> None:
        with pytest.raises(StoreError, match=r"can be larger than 15\.9 MB") as caught:
            send(store, *[bytes(size) for size in sent])
        assert not isinstance(caught.value, StoreUnavailable)
        assert store.sizes("q") == Sizes()


class TestProcesses:
    def test_a_child_has_a_client_of_its_own(self, store: Store) -> None:
        send(store, b"1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads at a fork
            child = os.fork()
        if child == 0:
            status = 1
            try:
                send(store, b"2")
                store.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1", b"2"]

    def test_the_last_that_closes_closes_the_client(self, store: Store) -> None:
        clone = store.clone()
        clone.close()
        assert store.exists("q")
        clone = store.clone()
        store.close()
        assert clone.exists("q")
        clone.close()
        assert clone._link._client is None  # type: ignore[attr-defined]

    def test_the_driver_has_a_name_of_its_own(self) -> None:
        assert mongodb.Transport.driver_type == "leased-mongodb"
