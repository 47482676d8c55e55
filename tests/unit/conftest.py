"""An echo server, and a link to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from broker_profiles.comparison.link import Link
from tests.unit.echo import Dial, Echo


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def link(echo: Echo) -> Iterator[Link]:
    made = Link("127.0.0.1", echo.port)
    yield made
    made.close()


@pytest.fixture
def dial(link: Link) -> Iterator[Dial]:
    """Return a function that connects to the link; what it returned is closed in the end."""
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", link.port), 5))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()
