"""The PostgreSQL store against the contract, and what only PostgreSQL does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from broker_profiles.comparison.link import Link
from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports import postgresql
from broker_profiles.transports.postgresql import PostgreSQLStore
from broker_profiles.transports.store import Store
from tests.stores.sql_contract import SQLStoreContract
from tests.stores.sql_servers import OPTIONS, run_sql
from tests.stores.storing import eventually, receipts


def only_listens(store: PostgreSQLStore) -> None:
    """Wait for messages until nothing but a notification is waited for."""
    eventually(lambda: not store.wait(["q"], 0.05) and store._nothing)


class TestPostgreSQL(SQLStoreContract):
    system = "postgresql"
    store_class = PostgreSQLStore
    elsewhere = "options=-c%20timezone=Pacific/Chatham"

    @pytest.fixture
    def link(self, database: Server) -> Iterator[Link]:
        url = make_url(database.url)
        link = Link(url.host or "127.0.0.1", url.port or 5432)
        yield link
        link.close()

    @pytest.fixture
    def behind_link(self, database: Server, link: Link, store: Store) -> Iterator[PostgreSQLStore]:
        """A second connection to what `store` is in, over a link."""
        url = make_url(database.url).set(host="127.0.0.1", port=link.port)
        address = url.render_as_string(hide_password=False)
        opened = PostgreSQLStore.open(address, {**OPTIONS, "timeout_seconds": 2.0})
        yield opened
        opened.close()

    def test_waiting_ends_when_a_message_is_put_back(self, store: Store, other: Store) -> None:
        self.send(store, b"1")
        taken = store.reserve("c", ["q"], 1)
        timer = threading.Timer(0.4, lambda: store.release(receipts(taken), counted=True))
        timer.start()
        began = time.monotonic()
        assert other.wait(["q"], 10)
        assert time.monotonic() - began < 8
        timer.join()

    def test_only_what_is_waited_for_is_listened_to(self, store: Store) -> None:
        for queues in (["q"], ["q", "r"], ["r"]):
            assert not store.wait(queues, 0.01)
            assert len(run_sql(store, "SELECT pg_listening_channels()")) == 1 + len(queues)

    def test_short_waits_ask_nothing_once_it_is_quiet(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "_SILENCE", 3600.0)
        assert not store.wait(["q"], 0.3)
        asked: list[str] = []
        assert isinstance(store, PostgreSQLStore)
        store._query = lambda *query: asked.append(str(query)) or []  # type: ignore[method-assign]
        for _ in range(5):
            assert not store.wait(["q"], 0.01)
        assert asked == []

    def test_a_half_open_connection_is_an_error_to_who_only_waits(
        self, behind_link: PostgreSQLStore, link: Link, other: Store
    ) -> None:
        only_listens(behind_link)
        link.half_open()
        with pytest.raises(StoreUnavailable):
            behind_link.wait(["q"], 30)
        self.send(other, b"1")
        assert behind_link.wait(["q"], 10)

    def test_many_short_waits_find_a_half_open_connection_too(
        self, behind_link: PostgreSQLStore, link: Link
    ) -> None:
        only_listens(behind_link)
        link.half_open()

        def fails() -> bool:
            try:
                return behind_link.wait(["q"], 0.05)
            except StoreUnavailable:
                return True

        eventually(fails, 30)

    def test_waiting_over_a_connection_that_works_keeps_it(self, behind_link: PostgreSQLStore) -> None:
        assert not behind_link.wait(["q"], 0.05)
        first = behind_link._session.connection
        assert not behind_link.wait(["q"], 5)
        assert behind_link._session.connection is first

    def test_publishing_waits_for_the_disk_whatever_the_server_says(self, store: Store, other: Store) -> None:
        run_sql(store, "ALTER ROLE CURRENT_USER SET synchronous_commit = off")
        try:
            assert run_sql(other, "SHOW synchronous_commit") == [("on",)]
        finally:
            run_sql(store, "ALTER ROLE CURRENT_USER RESET synchronous_commit")
