"""The MongoDB store against the contract, and what only a server on a network can do to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from broker_profiles.comparison.servers import Server, ServerUnavailable, provide
from broker_profiles.transports.store import Store
from tests.stores.contract import StoreContract

pymongo = pytest.importorskip("pymongo")

from broker_profiles.transports.mongodb import MongoDBStore  # noqa: E402

pytestmark = pytest.mark.server("mongodb")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    try:
        server = provide("mongodb")
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


class TestContract(StoreContract):
    """Nothing but the contract."""
