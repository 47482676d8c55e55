"""What only a server on a network can do to the Redis store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreFull, StoreUnavailable
from broker_profiles.transports.redis import RedisStore
from broker_profiles.transports.store import REJECTED, Sizes, Store
from tests.stores.redis.server import Proxy, close_all_others, listening, snapshot
from tests.stores.storing import OpenStore, StoreFixtures, bodies, eventually, receipts, send

pytestmark = pytest.mark.server("redis")


class TestServerTrouble(StoreFixtures):
    def test_forgotten_scripts_are_loaded_again(self, store: Store, admin: Any) -> None:
        send(store, b"1")
        admin.script_flush()
        send(store, b"2")
        admin.script_flush()
        taken = store.reserve("c", ["q"], 5)
        admin.script_flush()
        store.acknowledge(receipts(taken))
        assert bodies(taken) == [b"1", b"2"]
        assert store.sizes("q") == Sizes()

    def test_everything_survives_the_death_of_the_server(self, store: Store, server: Server) -> None:
        send(store, b"leased", b"ready", priority=5)
        send(store, b"delayed", delay=0.5)
        held = store.reserve("c", ["q"], 1)
        server.kill()
        server.start()
        assert store.sizes("q") == Sizes(ready=1, delayed=1, leased=1)
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"ready"]
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"delayed"]
        store.acknowledge(receipts(held))
        assert store.sizes("q") == Sizes(leased=2)

    def test_a_restart_takes_nothing_from_who_lives(self, store: Store, other: Store, server: Server) -> None:
        store.renew("alive", ["q"])
        store.renew("dead", ["q"])
        send(store, b"1", b"2")
        held = store.reserve("alive", ["q"], 1)
        store.reserve("dead", ["q"], 1)
        server.kill()
        threading.Event().wait(2 * self.LEASE)
        server.start()
        other.renew("other", ["q"])
        assert other.reserve("other", ["q"], 5) == []
        assert store.renew("alive", ["q"]) is True

        def others_share() -> list[bytes]:
            other.renew("other", ["q"])
            store.renew("alive", ["q"])
            return bodies(other.reserve("other", ["q"], 5))

        assert eventually(others_share) == [b"2"]
        store.acknowledge(receipts(held))
        assert store.sizes("q") == Sizes(leased=1)

    def test_a_closed_connection_is_opened_again(self, store: Store, admin: Any) -> None:
        send(store, b"1")
        close_all_others(admin)
        with contextlib.suppress(StoreUnavailable):
            store.exists("q")
        assert bodies(store.reserve("c", ["q"], 1)) == [b"1"]

    def test_an_idle_connection_that_was_closed_is_no_error(self, store: Store, admin: Any) -> None:
        send(store, b"1")
        threading.Event().wait(0.2)
        close_all_others(admin)
        send(store, b"2")
        assert store.sizes("q") == Sizes(ready=2)

    def test_a_frozen_server_is_an_error_in_time(self, open_store: OpenStore, server: Server) -> None:
        store = open_store(timeout_seconds=0.5)
        server.pause()
        began = time.monotonic()
        for call in (lambda: send(store, b"1"), lambda: store.sizes("q"), lambda: store.wait(["q"], 0.1)):
            with pytest.raises(StoreUnavailable, match=r"^Redis at 127\.0\.0\.1:\d+ cannot be reached: "):
                call()
        assert time.monotonic() - began < 8
        server.resume()
        # What was said to have failed has not been stored when the server read it at last.
        send(store, b"2")
        assert bodies(store.reserve("c", ["q"], 5)) == [b"2"]
        store.close()

    def test_what_was_leased_in_a_lost_answer_is_delivered(
        self, server: Server, proxied: Callable[..., Proxy]
    ) -> None:
        listener, port = listening()
        proxy = proxied(listener)
        address = redis.connection.parse_url(server.url)
        url = server.url.replace(f":{address['port']}/", f":{port}/")
        store = RedisStore.open(url, {"timeout_seconds": 5.0})
        store.renew("c", ["q"])
        send(store, b"1", b"2")
        held = store.reserve("c", ["q"], 1)
        proxy.mute = True
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                store.reserve("c", ["q"], 1)
        proxy.mute = False
        again = store.reserve("c", ["q"], 5)
        assert [(each.body, each.deliveries) for each in again] == [(b"2", 1)]
        store.acknowledge(receipts(held))
        assert store.sizes("q") == Sizes(leased=1)
        store.close()

    def test_clocks_that_drift_apart_are_set_again(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        store._link._ahead -= 3600
        send(store, b"1")
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1"]

    def test_a_replica_is_unavailable_until_it_is_promoted(self, store: Store, admin: Any) -> None:
        admin.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(StoreUnavailable):
                send(store, b"1")
        finally:
            admin.replicaof("NO", "ONE")
        send(store, b"1")
        assert store.sizes("q") == Sizes(ready=1)

    def test_a_full_server_refuses_messages_and_can_be_emptied(
        self, store: Store, other: Store, admin: Any
    ) -> None:
        store.renew("c", ["q"])
        other.renew("d", ["q"])
        send(store, b"1", b"2", b"3", b"4", b"5")
        held = store.reserve("d", ["q"], 2)
        before = snapshot(admin)
        admin.config_set("maxmemory", "1mb")
        try:
            for batch in ([b"6"], [b"6"] * 50):
                with pytest.raises(StoreFull, match="cannot take more"):
                    send(store, *batch, priority=3, expires=60)
            assert snapshot(admin) == before
            store.declare("late", expires=60, message_ttl=None)
            store.bind("x", "", "late")
            assert store.renew("c", ["q", "late"]) is True
            other.release(receipts(held[:1]), counted=True)
            other.set_aside(receipts(held[1:]), REJECTED)
            taken = store.reserve("c", ["q"], 2)
            assert bodies(store.reserve("c", ["q"], 5, receipts(taken))) == [b"4", b"5"]
            store.forget("c")
        finally:
            admin.config_set("maxmemory", "0")
        assert bodies(store.reserve("c", ["q"], 9)) == [b"4", b"5"]
        assert store.sizes("q") == Sizes(leased=2, dead=1)
