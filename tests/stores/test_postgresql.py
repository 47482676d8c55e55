"""The PostgreSQL store against the contract, and what only PostgreSQL does."""

from __future__ import annotations

import threading
import time

from broker_profiles.transports.postgresql import PostgreSQLStore
from broker_profiles.transports.store import Store
from tests.stores.sql_contract import SQLStoreContract
from tests.stores.sql_servers import run_sql
from tests.stores.storing import receipts


class TestPostgreSQL(SQLStoreContract):
    system = "postgresql"
    store_class = PostgreSQLStore
    elsewhere = "options=-c%20timezone=Pacific/Chatham"

    def test_waiting_ends_when_a_message_is_put_back(self, store: Store, other: Store) -> None:
        self.send(store, b"1")
        taken = store.reserve("c", ["q"], 1)
        timer = threading.Timer(0.4, lambda: store.release(receipts(taken), counted=True))
        timer.start()
        began = time.monotonic()
        assert other.wait(["q"], 10)
        assert time.monotonic() - began < 2
        timer.join()

    def test_only_what_is_waited_for_is_listened_to(self, store: Store) -> None:
        for queues in (["q"], ["q", "r"], ["r"]):
            assert not store.wait(queues, 0.01)
            assert len(run_sql(store, "SELECT pg_listening_channels()")) == 1 + len(queues)

    def test_short_waits_ask_nothing_once_it_is_quiet(self, store: Store) -> None:
        assert not store.wait(["q"], 0.3)
        asked: list[str] = []
        assert isinstance(store, PostgreSQLStore)
        store._query = lambda *query: asked.append(str(query)) or []  # type: ignore[method-assign]
        for _ in range(5):
            assert not store.wait(["q"], 0.01)
        assert asked == []

    def test_publishing_waits_for_the_disk_whatever_the_server_says(self, store: Store, other: Store) -> None:
        run_sql(store, "ALTER ROLE CURRENT_USER SET synchronous_commit = off")
        try:
            assert run_sql(other, "SHOW synchronous_commit") == [("on",)]
        finally:
            run_sql(store, "ALTER ROLE CURRENT_USER RESET synchronous_commit")
