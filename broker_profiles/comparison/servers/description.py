"""What one system needs so that a real server of it can be had: a description, no behaviour.

A new system is one module in ``systems/`` that defines ``SYSTEM``; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
import secrets
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from .base import Server

USER = "broker_profiles"
NAME = "broker_profiles"  # the database or virtual host


@dataclass(frozen=True)
class Account:
    """Where a server that we start listens, and who may use it."""

    port: int
    user: str = USER
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    name: str = NAME

    @property
    def address(self) -> str:
        """``user:password@127.0.0.1:port``: loopback by number, for published ports differ
        between IPv4 and IPv6."""
        return f"{self.user}:{self.password}@127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Site:
    """The folder, the port and the programs of one native server."""

    folder: Path
    account: Account
    programs: Mapping[str, Path]
    side_port: int  # a second free port: RabbitMQ's port mapper
    other_port: int  # a third: RabbitMQ's distribution

    def write(self, name: str, text: str) -> Path:
        """A file of the server, readable by its user only: it may hold the password."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


class Native(ABC):
    """How a server runs as a plain process."""

    package: str  # of Debian and Ubuntu, installed by apt-get when we are root
    programs: Sequence[str]  # the first one is the server
    folders: Sequence[str] = ("/usr/sbin", "/usr/local/sbin")  # patterns, besides PATH
    user: str  # root hands the server to this user
    stop_signal: signal.Signals = signal.SIGTERM

    def environment(self, site: Site) -> Mapping[str, str]:
        """Variables of the server besides PATH, HOME, TMPDIR and LANG: it inherits no others."""
        return {}

    def write_files(self, site: Site) -> None:  # noqa: B027
        """Configuration, before anything runs."""

    def setup(self, site: Site) -> Sequence[tuple[Sequence[str], str]]:
        """Commands, each with its standard input, that make an empty data folder."""
        return ()

    def helper(self, site: Site) -> Sequence[str]:
        """A command that has to run beside the server from before its start until its close."""
        return ()

    @abstractmethod
    def command(self, site: Site) -> Sequence[str]:
        """The server in the foreground: one process, no daemon."""


#: How the version ends of what speaks the protocol of a system and is not that system.
IMITATION = ", an imitation"


class Tables(ABC):
    """How the tables of a server in a container come to a small disk, which can be filled."""

    user: str  # of the server, in the container

    @abstractmethod
    def move(self, server: Server, folder: str) -> None:
        """Move them to an empty folder, or back where they were: "". Raises `ServerUnavailable`."""


class System(ABC):
    """One kind of server."""

    name: str
    url_variable: str  # the environment variable that names a running one
    schemes: Sequence[str]  # of its URL; "+driver" does not count
    driver: str  # what to say to pip when the import fails
    image: str
    container_port: int
    stop_signal: str = "SIGTERM"  # an orderly stop of the container that waits for no client
    native: Native | None = None
    tables: Tables | None = None

    @property
    def image_variable(self) -> str:
        """The environment variable that names another image."""
        return f"BROKER_PROFILES_{self.name.upper()}_IMAGE"

    @abstractmethod
    def url(self, account: Account) -> str:
        """The URL that clients use."""

    @abstractmethod
    def probe(self, url: str, timeout: float) -> str:
        """Connect, log in, ask for the version. Any exception means: not ready."""

    @abstractmethod
    def environment(self, account: Account) -> Mapping[str, str]:
        """Variables of the container."""

    def command(self, account: Account) -> Sequence[str]:
        """Command of the container; empty: the image's own."""
        return ()

    def fill(self, server: Server) -> Callable[[], None] | None:
        """Leave a server of ours no room, and return what gives it back; none where no way is known."""
        return None

    def acknowledge_within(self, server: Server, seconds: float) -> Callable[[], None] | None:
        """Have a server of ours take a message back that is not acknowledged within so many seconds.

        For consumers that begin after this, whatever they ask for themselves. Return what undoes it; none
        where the server itself knows no such time.
        """
        return None

    @abstractmethod
    def stored(self, server: Server) -> int:
        """Count what a server of ours holds: rows, elements, documents or messages."""


def names() -> list[str]:
    """Every system that has a description."""
    package = importlib.import_module(f"{__package__}.systems")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(name: str) -> System:
    """The description of one system."""
    if name not in names():
        raise ValueError(f"no server is described for {name!r}; there are: {', '.join(names())}")
    system = importlib.import_module(f"{__package__}.systems.{name}").SYSTEM
    assert isinstance(system, System)
    return system


def scheme_of(url: str) -> str:
    """``postgresql`` of ``postgresql+psycopg://…``."""
    return urlsplit(url).scheme.partition("+")[0]


def without_driver(url: str) -> str:
    """The URL as the system's own client reads it, without SQLAlchemy's ``+driver``."""
    scheme, separator, rest = url.partition("://")
    return scheme.partition("+")[0] + separator + rest


def redact(text: str, url: str) -> str:
    """The text without the password of the URL, quoted or not, and on one line."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:  # a URL that cannot be taken apart is hidden as a whole
        password = url
    for secret in {password, unquote(password), quote(password), quote(unquote(password), "")}:
        if secret:
            text = text.replace(secret, "***")
    return " ".join(text.split())
