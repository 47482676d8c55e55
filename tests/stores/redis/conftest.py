"""A Redis server and stores on it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from broker_profiles.comparison.servers import Server
from broker_profiles.transports.redis import RedisStore
from broker_profiles.transports.store import Store
from tests.conftest import ServerOf
from tests.stores.redis.server import Proxy


@pytest.fixture
def server(server: ServerOf) -> Server:
    """The server of the run, as if nothing had been done to it."""
    return server("redis")


@pytest.fixture
def admin(server: Server) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def open_store(server: Server, admin: Any) -> Callable[..., Store]:
    return lambda **options: RedisStore.open(server.url, options)


@pytest.fixture
def proxied(server: Server, admin: Any) -> Iterator[Callable[..., Proxy]]:
    proxies: list[Proxy] = []

    def start(listener: socket.socket, context: ssl.SSLContext | None = None) -> Proxy:
        proxies.append(Proxy(listener, server.url, context))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()
