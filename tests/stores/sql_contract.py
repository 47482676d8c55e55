"""What every store in a SQL database has to do besides the contract."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker_profiles.comparison.servers import Server
from broker_profiles.errors import StoreError
from broker_profiles.transports.sql_schema import (
    MESSAGES,
    QUEUES,
)
from broker_profiles.transports.sql_session import Session
from broker_profiles.transports.sql_store import SQLStore
from broker_profiles.transports.store import REJECTED, Outgoing, Receipt, Sizes, Step, Store
from tests.stores.sql_servers import OPTIONS, SQLServerContract, run_sql
from tests.stores.storing import bodies, eventually, receipts


class SQLStoreContract(SQLServerContract):
    """The contract for a store in a SQL database."""

    # -- marks --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("seen", [None, "0"])
    def test_a_queue_that_is_dropped_under_a_step_with_a_mark_is_made_again(
        self, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, seen: str | None
    ) -> None:
        """Else the mark would say that the message was sent, and there would be none."""
        assert isinstance(store, SQLStore)
        assert seen is None or other.advance(Step("m", None, seen))
        step, dropped = store._step, iter(["r", "q"])

        def drop_first(*arguments: Any) -> bool:
            for name in itertools.islice(dropped, 1):
                other.drop(name)
            return step(*arguments)

        monkeypatch.setattr(store, "_step", drop_first)
        assert store.advance(Step("m", seen, "1"), [Outgoing("q", b"1"), Outgoing("r", b"2")])
        assert bodies(other.reserve("c", ["q", "r"], 5)) == [b"1", b"2"]
        assert next(dropped, None) is None
        assert other.marks(["m"]) == {"m": "1"}

    # -- many ---------------------------------------------------------------------------------------

    def test_delayed_messages_do_not_slow_others(self, store: Store) -> None:
        def seconds() -> float:
            began = time.monotonic()
            for _ in range(50):
                self.send(store, b"now")
                taken = store.reserve("c", ["q"], 1)
                assert bodies(taken) == [b"now"]
                store.acknowledge(receipts(taken))
            return time.monotonic() - began

        before = min(seconds() for _ in range(3))
        later = [Outgoing("q", b"later", delay=3600.0) for _ in range(10_000)]
        for _ in range(10):
            store.publish(later)
        assert store.sizes("q") == Sizes(delayed=100_000)
        # Not at every try: the machine may be busy with other things, or the disk with what was just sent.
        eventually(lambda: seconds() < 2 * before + 0.1, 30)
        assert store.purge("q") == 100_000

    def test_many_ready_messages_do_not_slow_reserving(self, store: Store) -> None:
        def fill(count: int) -> None:
            for priority in (0, 9, 4, 7, 1):
                store.publish([Outgoing("q", b"x" * 100, priority) for _ in range(count)])

        def seconds() -> float:
            began = time.monotonic()
            for _ in range(20):
                taken = store.reserve("c", ["q"], 2)
                assert [delivery.priority for delivery in taken] == [9, 9]
                store.release(receipts(taken), counted=False)
            return time.monotonic() - began

        fill(4)
        before = min(seconds() for _ in range(3))
        fill(4000)
        eventually(lambda: seconds() < 3 * before + 0.1, 30)

    def test_acknowledged_messages_leave_no_row(self, store: Store) -> None:
        self.send(store, *(b"%d" % number for number in range(100)))
        taken = store.reserve("c", ["q"], 100)
        store.acknowledge(receipts(taken))
        assert run_sql(store, f"SELECT count(*) FROM {MESSAGES}")[0][0] == 0

    def test_due_at_once_are_delivered_in_order_of_priority(self, store: Store) -> None:
        store.publish([Outgoing("q", b"%d" % n, n % 10, delay=0.2) for n in range(2500)])
        self.send(store, b"ready", priority=9)
        threading.Event().wait(0.3)
        found = [store.reserve("c", ["q"], 500) for _ in range(6)]
        assert [len(each) for each in found] == [500] * 5 + [1]

    def test_consumers_and_producers_do_not_lock_each_other_out(self, store: Store) -> None:
        ends = time.monotonic() + 4
        sent: list[bytes] = []
        seen: list[bytes] = []
        rejected: list[bytes] = []

        def produce(number: int) -> None:
            mine = store.clone()
            count = 0
            while time.monotonic() < ends:
                batch = [
                    Outgoing(random.choice("qr"), b"%d.%d.%d" % (number, count, i), random.randrange(10))
                    for i in range(random.choice((1, 1, 5)))
                ]
                mine.publish(batch)
                sent.extend(message.body for message in batch)
                count += 1
            mine.close()

        def consume(number: int) -> None:
            mine = store.clone()
            name, settled = f"c{number}", list[Receipt]()
            empty = 0
            while time.monotonic() < ends or empty < 3:
                mine.renew(name, ["q", "r"])
                taken = mine.reserve(name, random.sample("qr", 2), random.choice((1, 4, 20)), settled)
                empty = 0 if taken else empty + 1
                settled = []
                for delivery in taken:
                    what = random.random()
                    if what < 0.1:
                        mine.release([delivery.receipt], counted=False)
                    elif what < 0.15:
                        mine.set_aside([delivery.receipt], REJECTED)
                        rejected.append(delivery.body)
                    else:
                        settled.append(delivery.receipt)
                        seen.append(delivery.body)
            mine.acknowledge(settled)
            mine.forget(name)
            mine.close()

        store.declare("r", expires=None, message_ttl=None)
        with ThreadPoolExecutor(6) as threads:
            work = [threads.submit(consume, n) for n in range(4)] + [
                threads.submit(produce, n) for n in range(2)
            ]
            for future in work:
                future.result()
        for queue in "qr":
            taken = store.reserve("last", [queue], 100_000)
            seen += bodies(taken)
            store.acknowledge(receipts(taken))
        assert sorted(seen + rejected) == sorted(sent)

    # -- the rest ---------------------------------------------------------------------------------

    def test_the_time_zone_of_the_session_does_not_matter(self, store: Store, database: Server) -> None:
        separator = "&" if "?" in database.url else "?"
        other = self.store_class.open(database.url + separator + self.elsewhere, OPTIONS)
        other.publish([Outgoing("q", b"later", delay=3600), Outgoing("q", b"now", expires=3600)])
        taken = store.reserve("c", ["q"], 5)
        assert bodies(taken) == [b"now"]
        other.set_aside(receipts(taken), REJECTED)
        assert abs(store.dead_letters()[0].died_at - time.time()) < 60
        self.send(store, b"here")
        assert bodies(other.reserve("c", ["q"], 5)) == [b"here"]
        other.renew("d", [])
        assert other.sizes("q") == Sizes(delayed=1, leased=1, dead=1)
        other.close()

    def test_names_are_told_apart_exactly(self, store: Store) -> None:
        names = ["Q", "q ", "\u00e9", "e\u0301", "\U0001f600", "%s", "'; DROP TABLE x; --", "n" * 255]
        for name in names:
            store.publish([Outgoing(name, name.encode())])
        assert store.sizes("q") == Sizes()
        for name in names:
            assert bodies(store.reserve("c", [name], 5)) == [name.encode()]
        for name in ("n" * 256, "nul\0"):
            with pytest.raises(StoreError):
                store.publish([Outgoing(name, b"")])
            with pytest.raises(StoreError):
                store.bind("x", "", name)

    def test_a_child_leaves_its_parents_connection_alone(self, store: Store) -> None:
        self.send(store, b"1")
        assert not store.wait(["unknown"], 0.3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                self.send(store, b"2")
                assert store.wait(["q"], 1)
                store.close()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert not store.wait(["unknown"], 0.01)
        assert bodies(store.reserve("c", ["q"], 5)) == [b"1", b"2"]

    def test_an_exception_in_the_middle_of_a_call_does_no_harm(self, store: Store) -> None:
        assert isinstance(store, SQLStore)

        def interrupted(cursor: Any) -> None:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"DELETE FROM {QUEUES}")
            raise TimeoutError

        with pytest.raises(TimeoutError):
            store._session.run(interrupted)
        assert store.exists("q")

    def test_what_others_undid_is_repeated(self, store: Store) -> None:
        assert isinstance(store, SQLStore)
        first, second = store, store.clone()
        for name in ("a", "b"):
            store.declare(name, expires=9, message_ttl=None)
        both = threading.Barrier(2)
        turns: list[str] = []

        def change(session: Session, names: str) -> None:
            def work(cursor: Any) -> None:
                for name in names:
                    cursor.execute(f"UPDATE {QUEUES} SET used_at = used_at + 1 WHERE name = %s", (name,))
                    if len(turns) < 2:
                        turns.append(name)
                        both.wait(10)

            session.transaction(work)

        with ThreadPoolExecutor(2) as threads:
            done = [
                threads.submit(change, first._session, "ab"),
                threads.submit(change, second._session, "ba"),
            ]
            for future in done:
                future.result()
        second.close()

    def test_waiting_misses_nothing(self, store: Store, other: Store) -> None:
        slowest = 0.0
        for turn in range(40):
            waited: list[float] = []

            def publish(turn: int = turn, waited: list[float] = waited) -> None:
                threading.Event().wait(random.choice((0.0, 0.002, 0.02, 0.06, 0.15)))
                self.send(other, b"%d" % turn)
                waited.append(time.monotonic())

            thread = threading.Thread(target=publish)
            thread.start()
            taken = eventually(lambda: store.wait(["q"], 5) and store.reserve("c", ["q"], 1))
            ended = time.monotonic()
            thread.join()
            slowest = max(slowest, ended - waited[0])
            store.acknowledge(receipts(taken))
        assert slowest < 4  # one that is missed is found when the waiting ends, after 5

    def test_waiting_ends_when_an_earlier_message_is_due(self, store: Store, other: Store) -> None:
        self.send(store, b"late", delay=60)
        timer = threading.Timer(0.3, lambda: self.send(other, b"early", delay=0.2))
        timer.start()
        began = time.monotonic()
        assert store.wait(["q"], 10)
        assert time.monotonic() - began < 8
        timer.join()
