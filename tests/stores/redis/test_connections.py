"""Who may use the Redis store, and over which connections."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreDenied, StoreError, StoreUnavailable
from broker_profiles.transports.redis import RedisStore
from broker_profiles.transports.store import Sizes, Store
from tests.stores.redis.server import Proxy, listening, self_signed
from tests.stores.storing import StoreFixtures, bodies, receipts, send

pytestmark = pytest.mark.server("redis")


class TestWhoMayAndHow(StoreFixtures):
    def test_a_wrong_password_is_not_tried_again(self, server: Server) -> None:
        address = redis.connection.parse_url(server.url)
        url = f"redis://:wrong-secret@127.0.0.1:{address['port']}/0"
        with pytest.raises(StoreDenied) as caught:
            RedisStore.open(url, {})
        assert not isinstance(caught.value, StoreUnavailable)
        assert "wrong-secret" not in str(caught.value) + repr(caught.value.details)

    def test_a_user_needs_its_prefix_and_no_more(self, server: Server, admin: Any) -> None:
        address = redis.connection.parse_url(server.url)
        admin.execute_command(
            "ACL", "SETUSER", "tasks", "reset", "on", ">pass", "~{broker-profiles}:*", "+@all", "-@dangerous"
        )
        url = f"redis://tasks:pass@127.0.0.1:{address['port']}/0"
        store = RedisStore.open(url, {})
        send(store, b"1")
        store.renew("c", ["q"])
        store.wait(["q"], 1)
        store.acknowledge(receipts(store.reserve("c", ["q"], 1)))
        store.wait(["q"], 0.01)
        store.close()
        stranger = RedisStore.open(url, {"key_prefix": "other"})
        for call in (lambda: send(stranger, b"1"), lambda: stranger.bindings("x")):
            with pytest.raises(StoreDenied):
                call()
        stranger.close()
        admin.acl_deluser("tasks")

    def test_nobody_there(self) -> None:
        listener, port = listening()
        listener.close()
        with pytest.raises(StoreUnavailable) as caught:
            RedisStore.open(f"redis://:secret@127.0.0.1:{port}/0", {})
        assert str(caught.value).startswith(f"Redis at 127.0.0.1:{port} cannot be reached: ")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["http://localhost", "redis://localhost?db=x", "redis://localhost?oops=1"]
    )
    def test_an_unusable_address(self, url: str) -> None:
        with pytest.raises(StoreError) as caught:
            RedisStore.open(url, {})
        assert not isinstance(caught.value, StoreUnavailable)

    def test_certificates_are_verified(
        self, server: Server, proxied: Callable[..., Proxy], tmp_path: Path
    ) -> None:
        certificate = self_signed(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        listener, port = listening()
        proxied(listener, context)
        address = redis.connection.parse_url(server.url)
        url = (
            f"rediss://:{address['password']}@127.0.0.1:{port}/0"
            if "password" in address
            else (f"rediss://127.0.0.1:{port}/0")
        )
        with pytest.raises(StoreError, match="ssl_ca_certs") as caught:
            RedisStore.open(url, {})
        assert not isinstance(caught.value, StoreUnavailable)
        for query in (f"ssl_ca_certs={certificate}", "ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE"):
            store = RedisStore.open(f"{url}?{query}", {})
            send(store, b"1")
            threading.Event().wait(0.2)
            assert bodies(store.reserve("c", ["q"], 5)) == [b"1"]
            store.acknowledge(receipts(store.reserve("c", ["q"], 5)))
            store.close()

    def test_a_unix_socket(self, server: Server, proxied: Callable[..., Proxy], tmp_path: Path) -> None:
        path = tmp_path / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        proxied(listener)
        password = redis.connection.parse_url(server.url).get("password", "")
        store = RedisStore.open(f"unix://:{password}@{path}", {})
        send(store, b"1")
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1"]
        store.close()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_child_has_connections_of_its_own(self, store: Store) -> None:
        send(store, b"parent")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                send(store, b"child")
                os.write(write, b"sent")
                store.close()
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"sent"
        os.close(read)
        assert bodies(store.reserve("c", ["q"], 5)) == [b"parent", b"child"]

    def test_settling_while_another_thread_waits(self, store: Store) -> None:
        send(store, b"1")
        held = store.reserve("c", ["q"], 1)
        thread = threading.Thread(target=store.wait, args=(["q"], 1.0))
        thread.start()
        store.acknowledge(receipts(held))
        assert store.sizes("q") == Sizes()
        assert thread.is_alive()
        thread.join()
