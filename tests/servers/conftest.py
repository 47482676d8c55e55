from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from server_ways import ENVIRON, WAYS, Have

from broker_profiles.comparison.servers import Server, ServerUnavailable, provide


def _have(way: str, system: str) -> Server:
    """A server, or a skip with the reason; in CI its absence is a failure."""
    try:
        return provide(system, {**ENVIRON, "BROKER_PROFILES_SERVERS": way})
    except ServerUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def have() -> Iterator[Have]:
    """Starts a server for one test, which is closed after it."""
    started: list[Server] = []

    def start(way: str, system: str) -> Server:
        started.append(_have(way, system))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="module", params=WAYS, ids=lambda param: "-".join(param))
def shared(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = _have(*request.param)
    yield server
    server.close()


@pytest.fixture
def server(shared: Server) -> Server:
    """Every system in every way, one server for the tests of a module, running and answering."""
    shared.heal()
    return shared
