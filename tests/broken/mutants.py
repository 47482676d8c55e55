"""Transports that are broken on purpose, each in one way, and a sound one: what the suite has to tell apart.

Chosen by Celery's own setting: `broker_transport = "tests.broken.mutants:ForgetsToRenew"`.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from unittest.mock import patch

from broker_profiles.errors import StoreError
from broker_profiles.transports import channel, leased, routing, sqlite, sqlite_tables
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.sqlite_file import SQLiteFile
from broker_profiles.transports.store import Delivery, Outgoing, Receipt


class Sound(sqlite.Transport):
    """Nothing is wrong with it: the twin of all the others."""


# -- it acknowledges, leases and fences wrongly ---------------------------------------------------


class AcknowledgesBeforeRunning(sqlite.Transport):
    """What is handed to a worker is gone from the store."""

    def reserve(self, queues: list[str], limit: int) -> list[Delivery]:
        deliveries = super().reserve(queues, limit)
        self.store.acknowledge([delivery.receipt for delivery in deliveries])
        return deliveries


class _ForgetfulStore(SQLiteStore):
    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        # The leases of others still end, or nothing would ever come back.
        with self._file.transaction() as connection:
            sqlite_tables.end_what_ran_out(connection, consumer, sqlite_tables.now_ms())
        return True


class ForgetsToRenew(sqlite.Transport):
    """A lease ends though its worker lives."""

    store_class = _ForgetfulStore


class _UnfencedStore(SQLiteStore):
    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        super().renew(consumer, queues)
        return True

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        with self._file.transaction() as connection:
            ids = [(receipt.message,) for receipt in receipts]
            connection.executemany("DELETE FROM messages WHERE id = ?", ids)

    def reserve(
        self, consumer: str, queues: Sequence[str], limit: int, acknowledge: Sequence[Receipt] = ()
    ) -> list[Delivery]:
        self.acknowledge(acknowledge)
        return super().reserve(consumer, queues, limit)


class HasNoFence(sqlite.Transport):
    """An old acknowledgement removes what another worker holds by now.

    Neither of two fences holds: a worker does not learn that its lease has run out, whereupon it would
    forget what it held, and the store does not compare tokens. Either of them alone would be enough.
    """

    store_class = _UnfencedStore


class _EndlessStore(SQLiteStore):
    def __init__(self, file: SQLiteFile, lease_seconds: float, delivery_limit: int) -> None:
        super().__init__(file, lease_seconds, sys.maxsize)


class NeverSetsAside(sqlite.Transport):
    """A message is delivered again, however often it was."""

    store_class = _EndlessStore


class _WastefulStore(SQLiteStore):
    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        self.acknowledge(receipts)


class ThrowsAwayWhatItCannotRead(sqlite.Transport):
    """What should be a dead letter is nowhere."""

    store_class = _WastefulStore


# -- it loses or repeats --------------------------------------------------------------------------


class _EmptiedStore(SQLiteStore):
    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        store = super().open(url, options)
        store._file.write("DELETE FROM messages", ())
        return store


class EmptiesOnOpening(sqlite.Transport):
    """A restart begins with an empty store."""

    store_class = _EmptiedStore


class _LaterStore(SQLiteStore):
    def publish(self, messages: Sequence[Outgoing]) -> None:
        threading.Timer(1.0, super().publish, [list(messages)]).start()


class StoresLater(sqlite.Transport):
    """For a second after `delay()` returned a message is in the memory of its sender alone."""

    store_class = _LaterStore


class _LeakyStore(SQLiteStore):
    one_in: int
    _number = itertools.count(1)

    def reserve(
        self, consumer: str, queues: Sequence[str], limit: int, acknowledge: Sequence[Receipt] = ()
    ) -> list[Delivery]:
        kept: list[Delivery] = []
        for delivery in super().reserve(consumer, queues, limit, acknowledge):
            if next(self._number) % self.one_in:
                kept.append(delivery)
            else:
                self.acknowledge([delivery.receipt])
        return kept


class _LeakingOneInFifty(_LeakyStore):
    one_in = 50


class _LeakingOneInAThousand(_LeakyStore):
    one_in = 1000


class LosesOneInFifty(sqlite.Transport):
    """A worker never gets every fiftieth message."""

    store_class = _LeakingOneInFifty


class LosesOneInAThousand(sqlite.Transport):
    """A worker never gets every thousandth message."""

    store_class = _LeakingOneInAThousand


class _TwofoldStore(SQLiteStore):
    def publish(self, messages: Sequence[Outgoing]) -> None:
        super().publish([*messages, *messages])


class DeliversTwice(sqlite.Transport):
    """Every message is there twice."""

    store_class = _TwofoldStore


class _GreedyStore(SQLiteStore):
    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        if counted:
            super().release(receipts, counted=counted)
        else:
            self.acknowledge(receipts)


class GivesNothingBack(sqlite.Transport):
    """What a worker had fetched when it was told to end is lost."""

    store_class = _GreedyStore


class _SilentStore(SQLiteStore):
    def publish(self, messages: Sequence[Outgoing]) -> None:
        with contextlib.suppress(StoreError):
            super().publish(messages)


class SwallowsPublishErrors(sqlite.Transport):
    """`delay()` returns as if a message were stored that was refused."""

    store_class = _SilentStore


# -- it delivers at the wrong time or in the wrong order ------------------------------------------


class _ChangedStore(SQLiteStore):
    """Changes every message on its way in."""

    change: Mapping[str, Any]

    def publish(self, messages: Sequence[Outgoing]) -> None:
        super().publish([replace(message, **self.change) for message in messages])


class _FlatStore(_ChangedStore):
    change = {"priority": 0}


class IgnoresPriority(sqlite.Transport):
    """All messages are equally urgent."""

    store_class = _FlatStore


class _HastyStore(_ChangedStore):
    change = {"delay": 0.0}


class DeliversDelayedAtOnce(sqlite.Transport):
    """A delayed message is delivered like any other."""

    store_class = _HastyStore


class _CredulousChannel(channel.Channel):
    def _message(self, delivery: Delivery, *, no_ack: bool) -> Any:
        with patch.object(routing, "now_due", lambda headers, now: headers):
            return super()._message(delivery, no_ack=no_ack)


class HoldsDelayedInTheWorker(DeliversDelayedAtOnce):
    """And the worker waits itself until it is due, as with Celery's own transports."""

    def create_channel(self, connection: Any) -> Any:
        with patch.object(leased, "Channel", _CredulousChannel):
            return super().create_channel(connection)


class _LastingStore(_ChangedStore):
    change = {"expires": None}


class IgnoresExpires(sqlite.Transport):
    """What has expired is delivered all the same."""

    store_class = _LastingStore


_LAST_FIRST = sqlite_tables.RESERVE.replace("priority DESC, id LIMIT", "priority DESC, id DESC LIMIT")


class _PiledStore(SQLiteStore):
    def _take(self, *args: Any) -> list[Delivery]:
        with patch.object(sqlite_tables, "RESERVE", _LAST_FIRST):
            return super()._take(*args)[::-1]


class LastInFirstOut(sqlite.Transport):
    """The newest message of a priority comes first."""

    store_class = _PiledStore


# -- it does not broadcast ------------------------------------------------------------------------


class LosesBroadcasts(sqlite.Transport):
    """What goes to a fanout exchange goes nowhere."""

    def route(self, exchange: str, routing_key: str) -> list[str]:
        if self.state.exchanges.get(exchange, {}).get("type") == "fanout":
            return []
        return super().route(exchange, routing_key)


class LosesEvents(sqlite.Transport):
    """What workers tell of themselves and their tasks goes nowhere."""

    def route(self, exchange: str, routing_key: str) -> list[str]:
        if self.state.exchanges.get(exchange, {}).get("type") == "topic":
            return []
        return super().route(exchange, routing_key)


# -- it does not come back ------------------------------------------------------------------------


class _DeafStore(SQLiteStore):
    _deaf = False

    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        try:
            return super().renew(consumer, queues)
        except StoreError:
            _DeafStore._deaf = True
            raise

    def reserve(
        self, consumer: str, queues: Sequence[str], limit: int, acknowledge: Sequence[Receipt] = ()
    ) -> list[Delivery]:
        return [] if self._deaf else super().reserve(consumer, queues, limit, acknowledge)


class StaysAway(sqlite.Transport):
    """After an outage a worker is connected and gets nothing."""

    store_class = _DeafStore
