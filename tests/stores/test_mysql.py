"""The MySQL store against the contract."""

from __future__ import annotations

import pytest

from broker_profiles.errors import StoreError
from broker_profiles.transports.mysql import MySQLStore
from broker_profiles.transports.sql_schema import MESSAGES, QUEUES
from broker_profiles.transports.store import Outgoing, Store
from tests.stores.sql_contract import SQLStoreContract
from tests.stores.sql_servers import run_sql
from tests.stores.storing import bodies


class TestMySQL(SQLStoreContract):
    system = "mysql"
    store_class = MySQLStore
    elsewhere = "init_command=SET%20time_zone%3D%27%2B12:45%27"

    def test_a_message_that_no_packet_can_hold_is_refused_with_the_reason(self, store: Store) -> None:
        largest = run_sql(store, "SELECT @@max_allowed_packet")[0][0]
        with pytest.raises(StoreError, match="max_allowed_packet"):
            self.send(store, bytes(largest // 2 + 1))
        body = b"\0" * (largest // 2 - 1000)
        self.send(store, body)
        assert bodies(store.reserve("c", ["q"], 1)) == [body]

    def test_many_large_messages_travel_in_several_packets(self, store: Store) -> None:
        largest = run_sql(store, "SELECT @@max_allowed_packet")[0][0]
        sent = [bytes([number]) * (largest // 5) for number in range(7)]
        store.publish([Outgoing("q", body) for body in sent])
        assert bodies(store.reserve("c", ["q"], 7)) == sent

    def test_reserving_reads_the_index_and_sorts_nothing(self, store: Store) -> None:
        self.send(store, b"1", b"2")
        query = (
            f"EXPLAIN SELECT id FROM {MESSAGES} FORCE INDEX (broker_profiles_ready) WHERE queue = "
            f"(SELECT id FROM {QUEUES} WHERE name = 'q') AND state = 0 ORDER BY place, id LIMIT 1"
        )
        plan = " ".join(map(str, run_sql(store, query)))
        assert "broker_profiles_ready" in plan
        assert "filesort" not in plan
