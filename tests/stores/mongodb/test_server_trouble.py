"""What only a server on a network can do to the MongoDB store."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pymongo
import pytest

from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from broker_profiles.transports.mongodb import MongoDBStore
from broker_profiles.transports.mongodb_database import Link
from broker_profiles.transports.store import Store
from tests.stores.storing import OpenStore, bodies, eventually, send

pytestmark = pytest.mark.server("mongodb")

SECRET = "hidden-word"


class TestErrors:
    def test_a_server_that_is_not_there(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="refused") as caught:
            MongoDBStore.open(f"mongodb://user:{SECRET}@127.0.0.1:{port}/x", {"timeout_seconds": 1.0})
        assert time.monotonic() - began < 4.5  # 5 is what it waits unless told
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
            assert time.monotonic() - began < 4.5  # 5 is what it waits unless told

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
            assert time.monotonic() - began < 4.5  # 5 is what it waits unless told
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
        assert time.monotonic() - began < 5
