"""What every test of a store uses: a store, a second one on the same storage, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker_profiles.transports.store import (
    Delivery,
    Outgoing,
    Receipt,
    Store,
)
from tests.waiting import until

OpenStore = Callable[..., Store]


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def receipts(deliveries: list[Delivery]) -> list[Receipt]:
    return [delivery.receipt for delivery in deliveries]


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the first true value of a condition; fail when there is none in time."""
    return until(condition, seconds, "what a store has to do by itself")


def send(store: Store, *messages: bytes, **fields: Any) -> None:
    store.publish([Outgoing("q", body, **fields) for body in messages])


class StoreFixtures:
    """Two connections to one storage; times are short so that leases run out within a test."""

    LEASE = 1.0

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"lease_seconds": self.LEASE, "delivery_limit": 3, "timeout_seconds": 5.0}

    @pytest.fixture
    def store(self, open_store: OpenStore, options: dict[str, Any]) -> Iterator[Store]:
        store = open_store(**options)
        store.declare("q", expires=None, message_ttl=None)
        yield store
        store.close()

    @pytest.fixture
    def other(self, store: Store) -> Iterator[Store]:
        other = store.clone()
        yield other
        other.close()

    send = staticmethod(send)
