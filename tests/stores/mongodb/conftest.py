"""A MongoDB server and stores on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pymongo
import pytest

from broker_profiles.comparison.servers import Server
from broker_profiles.transports.mongodb import MongoDBStore
from broker_profiles.transports.store import Store
from tests.conftest import ServerOf
from tests.stores.mongodb.server import CutOff
from tests.stores.storing import OpenStore


@pytest.fixture
def server(server: ServerOf) -> Server:
    """The server of the run, as if nothing had been done to it."""
    return server("mongodb")


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    name = f"bp_{uuid4().hex[:12]}"
    yield urlsplit(server.url)._replace(path=f"/{name}").geturl()
    server.heal()
    with pymongo.MongoClient(server.url) as client:
        client.drop_database(name)


@pytest.fixture
def open_store(url: str) -> Callable[..., Store]:
    return lambda **options: MongoDBStore.open(url, options)


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    store = open_store(lease_seconds=1.0, delivery_limit=3, timeout_seconds=5.0)
    store.declare("q", expires=None, message_ttl=None)
    yield store
    store.close()


@pytest.fixture
def other(open_store: OpenStore, store: Store) -> Iterator[Store]:
    """A store over a client of its own."""
    other = open_store(lease_seconds=1.0, delivery_limit=3, timeout_seconds=5.0)
    yield other
    other.close()


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch, store: Store) -> CutOff:
    return CutOff(monkeypatch, store)
