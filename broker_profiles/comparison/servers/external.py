"""The first way: a server that already runs, named by a URL in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .base import Server, ServerUnavailable
from .description import System, scheme_of

ANSWER_SECONDS = 10.0  # it runs already: no start to wait for


class ExternalServer(Server):
    """Somebody else's server: used as it is, never harmed."""

    def __init__(self, system: System, url: str):
        super().__init__(system, "url", url, f"url {system.url_variable}")


def named(system: System, environ: Mapping[str, str]) -> str:
    """The URL that the environment has for this system, or an empty string."""
    variable = system.url_variable
    url = environ.get(variable, "").strip()
    file = environ.get(f"{variable}_FILE", "").strip()
    if not url and file:
        try:
            url = Path(file).read_text().strip()
        except OSError as error:
            raise ServerUnavailable(f"{variable}_FILE cannot be read: {error.strerror}") from None
    try:
        # DATABASE_URL names one database; the other system then goes its own way.
        return url if scheme_of(url) in system.schemes else ""
    except ValueError:
        raise ServerUnavailable(f"{variable} is not a URL") from None


def connect(system: System, url: str) -> Server:
    """The server at this URL, if it answers."""
    server = ExternalServer(system, url)
    server.wait_ready(ANSWER_SECONDS)
    return server
