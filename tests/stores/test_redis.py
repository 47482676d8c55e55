"""The Redis store against the contract, and what only a server on a network can do to it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_profiles.comparison.servers import Server, ServerUnavailable, provide
from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable
from broker_profiles.transports.store import REJECTED, Outgoing, Sizes, Store
from tests.stores.contract import OpenStore, StoreContract, bodies, eventually, receipts

redis = pytest.importorskip("redis")

from broker_profiles.transports.redis import RedisStore  # noqa: E402

pytestmark = pytest.mark.server("redis")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    try:
        server = provide("redis")
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
def admin(server: Server) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def open_store(server: Server, admin: Any) -> Callable[..., Store]:
    return lambda **options: RedisStore.open(server.url, options)


class TestContract(StoreContract):
    """Nothing but the contract."""


class Base:
    LEASE = 1.0

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[Store]:
        store = open_store(lease_seconds=self.LEASE, delivery_limit=3, timeout_seconds=5.0)
        store.declare("q", expires=None, message_ttl=None)
        yield store
        store.close()

    @pytest.fixture
    def other(self, store: Store) -> Iterator[Store]:
        other = store.clone()
        yield other
        other.close()


def send(store: Store, *messages: bytes, **fields: Any) -> None:
    store.publish([Outgoing("q", body, **fields) for body in messages])


def snapshot(admin: Any) -> dict[bytes, bytes]:
    return {key: admin.dump(key) for key in admin.keys("*")}


def close_all_others(admin: Any) -> None:
    def others() -> list[str]:
        return [each["addr"] for each in admin.client_list() if each["id"] != str(admin.client_id())]

    for address in others():
        admin.client_kill(address)
    eventually(lambda: not others())


class Proxy:
    """Passes bytes on to a server, from another kind of socket; can keep the answers to itself."""

    def __init__(self, listener: socket.socket, url: str, context: ssl.SSLContext | None = None) -> None:
        settings = redis.connection.parse_url(url)
        self._target = settings["host"], settings["port"]
        self._listener = listener
        self._context = context
        self._sockets: list[socket.socket] = []
        self.mute = False
        listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with contextlib.suppress(ssl.SSLError):
                    if self._context is not None:
                        client = self._context.wrap_socket(client, server_side=True)
                    upstream = socket.create_connection(self._target)
                    self._sockets += [client, upstream]
                    for source, sink, answers in ((client, upstream, False), (upstream, client, True)):
                        threading.Thread(
                            target=self._pass_on, args=(source, sink, answers), daemon=True
                        ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.mute:
                    for each in (source, sink):
                        each.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def proxied(server: Server, admin: Any) -> Iterator[Callable[..., Proxy]]:
    proxies: list[Proxy] = []

    def start(listener: socket.socket, context: ssl.SSLContext | None = None) -> Proxy:
        proxies.append(Proxy(listener, server.url, context))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


def listening() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


class TestServerTrouble(Base):
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


class TestWhoMayAndHow(Base):
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


class TestKeys(Base):
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


class TestMany(Base):
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
        crowded = min(work() for _ in range(5))
        assert store.sizes("q") == Sizes(delayed=100_000)
        assert crowded < 3 * alone + 0.05
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
        assert time.monotonic() - began < 0.8
        assert sorted(taken) == [b"1", b"2", b"3"]
        for each in stores:
            each.close()

    def test_one_that_is_due_sooner_shortens_the_wait(self, store: Store, other: Store) -> None:
        send(store, b"later", delay=60)
        timer = threading.Timer(0.2, lambda: send(other, b"soon", delay=0.2))
        began = time.monotonic()
        timer.start()
        store.wait(["q"], 10)
        assert 0.35 < time.monotonic() - began < 1
        assert bodies(eventually(lambda: store.reserve("c", ["q"], 1))) == [b"soon"]
        timer.join()


def self_signed(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 and its key into one file."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
