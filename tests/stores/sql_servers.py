"""What every store in a SQL database has to stand: how it is opened, and when its server goes away."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreDenied, StoreError, StoreUnavailable
from broker_profiles.transports.sql_schema import (
    BINDINGS,
    CONSUMERS,
    DEAD,
    MARKS,
    MESSAGES,
    QUEUES,
    VERSIONS,
)
from broker_profiles.transports.sql_store import SQLStore
from broker_profiles.transports.store import Outgoing, Sizes, Step, Store
from tests.conftest import ServerOf
from tests.stores.contract import StoreContract
from tests.stores.storing import OpenStore, bodies, receipts

TABLES = (MESSAGES, QUEUES, CONSUMERS, BINDINGS, DEAD, MARKS)
OPTIONS = {"lease_seconds": 15.0, "delivery_limit": 5, "timeout_seconds": 5.0}

_OPEN_IN_ANOTHER_PROCESS = """
import sys
from importlib import import_module
module, name = sys.argv[1].split(":")
sys.stdin.read()
getattr(import_module(module), name).open(sys.argv[2], {}).close()
"""


def run_sql(store: Store, *statements: str) -> list[Any]:
    """Run statements past the store; return the rows of the last one."""
    assert isinstance(store, SQLStore)

    def work(cursor: Any) -> list[Any]:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []

    return store._session.run(work)


class SQLServerContract(StoreContract):
    """The contract, and what a database server does besides."""

    system: ClassVar[str]
    store_class: ClassVar[type[SQLStore]]
    #: What to add to an address for a session in another time zone.
    elsewhere: ClassVar[str]

    @pytest.fixture
    def database(self, server: ServerOf) -> Server:
        """A server whose tables are there and empty."""
        database = server(self.system)
        store = self.store_class.open(database.url, OPTIONS)
        run_sql(store, *(f"DELETE FROM {table}" for table in TABLES))
        store.close()
        return database

    @pytest.fixture
    def open_store(self, database: Server) -> Callable[..., Store]:
        return lambda **options: self.store_class.open(database.url, options)

    @pytest.fixture
    def without_tables(self, database: Server) -> Iterator[str]:
        store = self.store_class.open(database.url, OPTIONS)
        tables = (*TABLES, VERSIONS)
        run_sql(store, *(f"DROP TABLE {table}" for table in tables))
        store.close()
        yield database.url
        self.store_class.open(database.url, OPTIONS).close()

    # -- opening ----------------------------------------------------------------------------------

    def test_many_threads_make_the_tables_at_once(self, without_tables: str) -> None:
        barrier = threading.Barrier(10)

        def use(number: int) -> None:
            barrier.wait()
            store = self.store_class.open(without_tables, OPTIONS)
            store.publish([Outgoing("q", b"%d" % number)])
            store.close()

        with ThreadPoolExecutor(10) as threads:
            list(threads.map(use, range(10)))
        store = self.store_class.open(without_tables, OPTIONS)
        assert store.sizes("q") == Sizes(ready=10)
        store.close()

    def test_many_processes_make_the_tables_at_once(self, without_tables: str) -> None:
        name = f"{self.store_class.__module__}:{self.store_class.__name__}"
        command = [sys.executable, "-c", _OPEN_IN_ANOTHER_PROCESS, name, without_tables]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(5)
        ]
        ends = [process.communicate()[1] for process in processes]
        assert [(process.returncode, end) for process, end in zip(processes, ends, strict=True)] == [
            (0, b"")
        ] * 5

    def test_a_table_that_came_later_is_made_and_is_no_new_version(
        self, store: Store, open_store: OpenStore, options: dict[str, Any]
    ) -> None:
        """So that processes with the package from before it go on, and start again, beside newer ones."""
        (version,) = run_sql(store, f"SELECT version FROM {VERSIONS}")[0]
        assert version == 1
        run_sql(store, f"DROP TABLE {MARKS}")
        newer = open_store(**options)
        assert newer.advance(Step("m", None, "1"))
        assert newer.marks(["m"]) == {"m": "1"}
        newer.close()
        assert run_sql(store, f"SELECT version FROM {VERSIONS}")[0][0] == 1

    def test_tables_of_a_newer_version_are_left_alone(self, store: Store, other: Store) -> None:
        run_sql(store, f"UPDATE {VERSIONS} SET version = version + 1")
        try:
            with pytest.raises(StoreError, match="newer version"):
                other.sizes("q")
        finally:
            run_sql(store, f"UPDATE {VERSIONS} SET version = version - 1")

    def test_a_wrong_password_and_an_unknown_database(self, database: Server) -> None:
        from sqlalchemy import make_url

        url = make_url(database.url)
        for wrong in (url.set(password="not-it-s3cret"), url.set(database="nowhere")):
            with pytest.raises(StoreDenied) as caught:
                self.store_class.open(wrong.render_as_string(hide_password=False), OPTIONS)
            assert "\n" not in str(caught.value)
            assert str(wrong.password) not in str(caught.value)

    def test_an_address_may_have_the_other_scheme(self, database: Server) -> None:
        other = {"postgresql": "postgres", "mysql": "mariadb"}[self.system]
        with contextlib.closing(
            self.store_class.open(database.url.replace(self.system, other, 1), OPTIONS)
        ) as store:
            assert not store.exists("a queue that nobody has declared")

    def test_nobody_listens(self, database: Server) -> None:
        from sqlalchemy import make_url

        url = make_url(database.url).set(port=1).render_as_string(hide_password=False)
        with pytest.raises(StoreUnavailable):
            self.store_class.open(url, OPTIONS)

    def test_an_address_that_is_none_is_not_repeated(self) -> None:
        with pytest.raises(StoreError) as caught:
            self.store_class.open(f"{self.system}://user:s3cret@host:port/name", OPTIONS)
        assert "s3cret" not in str(caught.value)

    # -- the server goes away ---------------------------------------------------------------------

    def test_a_killed_server_loses_nothing(self, store: Store, database: Server) -> None:
        self.send(store, b"1", b"2", b"3")
        taken = store.reserve("c", ["q"], 1)
        database.kill()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            self.send(store, b"lost")
        assert time.monotonic() - began < 9
        database.start()
        # The same receipts, for the lease is as durable as the message.
        rest = store.reserve("c", ["q"], 5, receipts(taken))
        assert bodies(rest) == [b"2", b"3"]
        assert store.sizes("q") == Sizes(leased=2)

    def test_a_connection_closed_while_idle_is_replaced_unnoticed(
        self, store: Store, database: Server
    ) -> None:
        database.stop()
        database.start()
        self.send(store, b"1")
        assert bodies(store.reserve("c", ["q"], 1)) == [b"1"]

    def test_a_connection_is_kept(self, store: Store) -> None:
        assert isinstance(store, SQLStore)
        first = store._session.connection
        for _ in range(3):
            threading.Event().wait(0.05)
            self.send(store, b"1")
            store.reserve("c", ["q"], 1)
            store.wait(["q"], 0.01)
        assert store._session.connection is first

    def test_a_frozen_server_is_an_error_in_time(
        self, open_store: OpenStore, database: Server, options: dict[str, Any]
    ) -> None:
        store = open_store(**{**options, "timeout_seconds": 2.0})
        store.declare("q", expires=None, message_ttl=None)
        fresh = store.clone()
        database.pause()
        try:
            for each in (store, fresh):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    self.send(each, b"never")
                assert time.monotonic() - began < 9  # what a sender is promised
            began = time.monotonic()
            fresh.close()
            store.close()
            assert time.monotonic() - began < 5
        finally:
            database.resume()
        self.send(store, b"again")
        store.close()
