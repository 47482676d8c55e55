"""A message that cannot be settled at once is given back, and not kept by a worker that lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection

from broker_profiles.errors import StoreBusy
from broker_profiles.transports import memory
from broker_profiles.transports.memory import MemoryStore
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA
from broker_profiles.transports.store import Sizes


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    file = SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF")
    monkeypatch.setattr(memory, "_file", file)
    with Connection("memory://", transport="broker_profiles.transports.memory:Transport") as connection:
        yield connection.default_channel


@pytest.mark.parametrize(("method", "requeue"), [("set_aside", False), ("release", True)])
def test_a_rejection_the_store_refuses_is_tried_again(
    method: str, requeue: bool, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = channel.connection
    store = transport.store
    message = {"body": "{}", "content-type": None, "content-encoding": None, "headers": {}, "properties": {}}
    channel.basic_publish(message, "", "q")
    tag = channel.basic_get("q").delivery_tag

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreBusy(store="it", seconds=1.0)

    # The keeper has a store of its own; here it is asked by hand.
    transport._keeper.end()
    transport._keeper.join(5)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, method, refuse)
        channel.basic_reject(tag, requeue=requeue)
        assert store.sizes("q") == Sizes(leased=1)
    transport.settle_overdue(store, 0.0)
    assert store.sizes("q") == Sizes(ready=1)
    assert store.reserve("c", ["q"], 1)[0].deliveries == 2
