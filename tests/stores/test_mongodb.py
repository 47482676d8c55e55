"""The MongoDB store against the contract, and what only a server on a network can do to it."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from broker_profiles.comparison.servers import Server, ServerUnavailable, provide
from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from broker_profiles.transports.store import REJECTED, Outgoing, Receipt, Sizes, Store
from tests.stores.contract import OpenStore, StoreContract, bodies, eventually, receipts

pymongo = pytest.importorskip("pymongo")

from broker_profiles.transports import mongodb  # noqa: E402
from broker_profiles.transports.mongodb import MongoDBStore  # noqa: E402
from broker_profiles.transports.mongodb_database import LARGEST, Link  # noqa: E402

pytestmark = pytest.mark.server("mongodb")

SECRET = "hidden-word"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    try:
        server = provide("mongodb")
    except ServerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    running.heal()
    return running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    name = f"bp_{uuid4().hex[:12]}"
    yield urlsplit(server.url)._replace(path=f"/{name}").geturl()
    server.heal()
    with pymongo.MongoClient(server.url) as client:
        client.drop_database(name)


@pytest.fixture
def open_store(url: str) -> Callable[..., Store]:
    return lambda **options: MongoDBStore.open(url, options)


class TestContract(StoreContract):
    """Nothing but the contract."""


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    store = open_store(lease_seconds=1.0, delivery_limit=3, timeout_seconds=5.0)
    store.declare("q", expires=None, message_ttl=None)
    yield store
    store.close()


@pytest.fixture
def other(open_store: OpenStore, store: Store) -> Iterator[Store]:
    """A store over a client of its own."""
    other = open_store(lease_seconds=1.0, delivery_limit=3, timeout_seconds=5.0)
    yield other
    other.close()


def send(store: Store, *messages: bytes, **fields: Any) -> None:
    store.publish([Outgoing("q", body, **fields) for body in messages])


class CutOff:
    """Makes one call of a collection fail, before or after the server has done it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self._monkeypatch = monkeypatch
        with store._link.use() as collections:  # type: ignore[attr-defined]
            self._collections = collections

    def at(self, collection: str, method: str, *, done: bool = False, calls: int = 1) -> None:
        target = getattr(self._collections, collection)
        original = getattr(target, method)
        left = [calls]

        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return original(*arguments, **options)
            self._monkeypatch.setattr(target, method, original)
            if done:
                original(*arguments, **options)
            raise pymongo.errors.AutoReconnect("cut off")

        self._monkeypatch.setattr(target, method, call)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch, store: Store) -> CutOff:
    return CutOff(monkeypatch, store)


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


class TestErrors:
    def test_a_server_that_is_not_there(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="refused") as caught:
            MongoDBStore.open(f"mongodb://user:{SECRET}@127.0.0.1:{port}/x", {"timeout_seconds": 1.0})
        assert time.monotonic() - began < 3
        assert str(caught.value).startswith(
            f"MongoDB at 127.0.0.1:{port} cannot be reached: 127.0.0.1:{port}"
        )
        assert SECRET not in str(caught.value)
        assert "Topology" not in str(caught.value)

    def test_a_server_that_does_not_answer(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                MongoDBStore.open(f"mongodb://{address}/x", {"timeout_seconds": 1.0})
            assert time.monotonic() - began < 3

    def test_a_wrong_password(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.password:
            pytest.skip("the server has no users")
        wrong = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", f":{SECRET}@")).geturl()
        with pytest.raises(StoreDenied, match=r"(?i)auth") as caught:
            MongoDBStore.open(wrong, {"timeout_seconds": 5.0})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "address",
        [
            f"mongodb://u:{SECRET}:/@host/x",
            f"http://u:{SECRET}@host/x",
            f"mongodb://u:{SECRET}@host:port/x",
            f"mongodb://u:a/{SECRET}@host/x",
            f"mongodb://u:a@{SECRET}@host/x",
            f"mongodb+srv://u:a/{SECRET}@host/x",
            f"mongodb://u:{SECRET}@host/x?retryWritse=false",
            f"mongodb://u:{SECRET}@host/x?authMechanism=none",
        ],
    )
    def test_an_address_that_is_none(self, address: str) -> None:
        with pytest.raises(StoreError, match="address cannot be used") as caught:
            MongoDBStore.open(address, {})
        assert not isinstance(caught.value, StoreUnavailable)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (pymongo.errors.OperationFailure("x", 14031, {"errmsg": "OutOfDiskSpace"}), StoreFull),
            (pymongo.errors.OperationFailure("x", 8, {"errmsg": "No space left on device"}), StoreFull),
            (pymongo.errors.OperationFailure("x", 8000, {"errmsg": "bad auth : failed"}), StoreDenied),
            (pymongo.errors.OperationFailure("x", 13, {"errmsg": "not authorized"}), StoreDenied),
            (pymongo.errors.ExecutionTimeout("x", 50, {"errmsg": "exceeded time limit"}), StoreUnavailable),
            (pymongo.errors.NotPrimaryError("not primary"), StoreUnavailable),
            (pymongo.errors.WTimeoutError("x", 64, {"errmsg": "waiting timed out"}), StoreUnavailable),
            (pymongo.errors.BulkWriteError({"writeErrors": [{"code": 14031, "errmsg": "full"}]}), StoreFull),
            (pymongo.errors.OperationFailure("x", 10334, {"errmsg": "BSONObjectTooLarge"}), StoreError),
            (pymongo.errors.AutoReconnect("SSL: certificate verify failed"), StoreError),
        ],
    )
    def test_errors_in_our_words(self, error: Exception, expected: type[StoreError]) -> None:
        link = Link("mongodb://127.0.0.1:1/", 1.0)
        with pytest.raises(expected) as caught, link.use():
            raise error
        assert type(caught.value) is expected
        link.close()

    def test_a_version_that_is_too_old(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Link, "version", lambda _: [4, 4, 29])
        with pytest.raises(StoreError, match=r"version 4\.4\.29; 5\.0 is needed"):
            MongoDBStore.open(url, {})


class TestFaults:
    @pytest.fixture(autouse=True)
    def _owned(self, server: Server) -> None:
        if not server.owned:
            pytest.skip("the server is not ours to harm")

    def test_frozen_is_an_error_in_time_and_works_again(self, open_store: OpenStore, server: Server) -> None:
        store = open_store(timeout_seconds=1.0)
        send(store, b"1")
        server.pause()
        for call in (lambda: send(store, b"2"), lambda: store.sizes("q"), lambda: store.wait(["q"], 0.1)):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                call()
            assert time.monotonic() - began < 3
        server.resume()
        assert eventually(lambda: bodies(store.reserve("c", ["q"], 1))) == [b"1"]
        store.close()

    def test_what_was_sent_survives_the_servers_death(self, store: Store, server: Server) -> None:
        send(store, b"1", b"2")
        send(store, b"3", delay=0.5)
        server.kill()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            send(store, b"4")
        assert time.monotonic() - began < 8
        server.start()
        assert bodies(store.reserve("c", ["q"], 5))[:2] == [b"1", b"2"]
        eventually(lambda: store.reserve("c", ["q"], 5) or store.sizes("q").leased == 3)

    def test_a_dead_server_is_left_without_a_long_goodbye(self, store: Store, server: Server) -> None:
        send(store, b"1")
        server.kill()
        with pytest.raises(StoreUnavailable):
            send(store, b"2")
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 1


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
