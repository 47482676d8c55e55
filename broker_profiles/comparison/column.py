"""A column of the matrix: a profile on servers of certain versions, and the environment of its processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from broker_profiles.comparison.link import Link
from broker_profiles.comparison.servers import Server, ServerUnavailable, choose, description, provide
from broker_profiles.comparison.variables import base_environment, with_keys
from broker_profiles.errors import UnsupportedCombination
from broker_profiles.profile import Broker, Guarantees, Mode, Profile, ResultStore, Setting
from broker_profiles.registry import require_drivers, resolve
from broker_profiles.settings import Environment, address_variable

#: Which server stands for a baseline that takes any database.
_ANY_DATABASE = "postgresql"

#: The columns of a whole run, and of a quick one.
FULL = (
    "embedded",
    "rabbitmq@rabbitmq:3-management",
    "rabbitmq@rabbitmq:4-management",
    "redis@redis:7",
    "redis@redis:8",
    "redis@valkey/valkey:8",
    "postgresql",
    "mysql",
    "mongodb",
    "stock-rabbitmq",
    "stock-redis",
    "stock-sqlalchemy",
    "stock-mongodb",
)
QUICK = ("embedded", "rabbitmq", "redis", "postgresql", "stock-rabbitmq", "stock-redis")


@dataclass(frozen=True, slots=True)
class Column:
    """A profile, and the image its servers are to have where that was said: `redis@valkey/valkey:8`."""

    profile: Profile
    image: str = ""

    @property
    def name(self) -> str:
        """How a user selects it."""
        return f"{self.profile.name}@{self.image}" if self.image else self.profile.name

    @property
    def baseline(self) -> bool:
        """Whether it is Celery as it comes, which promises nothing here."""
        return self.profile.mode is Mode.STOCK

    def system(self, side: Broker | ResultStore) -> str | None:
        """Return the kind of server that a side needs, none for a file."""
        return _ANY_DATABASE if side.address == "database" else side.system


def parse(name: str) -> Column:
    """Return the column `PROFILE[@IMAGE]`. Raises `ConfigurationError`."""
    profile_name, _, image = name.strip().partition("@")
    profile = resolve(profile_name)
    require_drivers(profile)
    if profile.broker.in_process:
        problem = "its workers are threads of one process, and the suite kills processes"
        raise UnsupportedCombination(profile=profile.name, problem=problem)
    column = Column(profile, image)
    if image and column.system(profile.broker) is None:
        raise UnsupportedCombination(profile=column.name, problem="it has no server, hence no image of one")
    return column


class Host:
    """The servers of a column, their links, and the variables that lead to them.

    A server that stores both messages and results has a link for each, so that one can be cut alone.
    """

    def __init__(self, column: Column, environ: Mapping[str, str] = os.environ) -> None:
        self.column = column
        self._environ = dict(environ)
        self.servers: dict[str, Server] = {}
        self.broker_link: Link | None = None
        self.results_link: Link | None = None
        self.started = False

    @property
    def broker(self) -> Server | None:
        """The broker's server, none where it is a file."""
        return self.servers.get(self.column.system(self.column.profile.broker) or "")

    @property
    def results(self) -> Server | None:
        """The result store's server, none where it is a file or the broker carries the results."""
        return self.servers.get(self.column.system(self.column.profile.results) or "")

    def start(self) -> None:
        """Have every server. Raises `ServerUnavailable`."""
        profile = self.column.profile
        sides: list[Broker | ResultStore] = [profile.broker, profile.results]
        for system in filter(None, map(self.column.system, sides)):
            if system not in self.servers:
                self.servers[system] = server = provide(system, self._with_image(system))
                if not server.owned:
                    _require_one_plain_address(server)
        if self.broker is not None:
            self.broker_link = _link_to(self.broker)
        if profile.broker.address == profile.results.address == "database":
            # One address leads to both, hence one link.
            self.results_link = self.broker_link
        elif self.results is not None:
            self.results_link = _link_to(self.results)
        self.started = True

    def variables(self, *, direct: bool = False) -> dict[str, str]:
        """Return what leads a process to the servers, through the links unless `direct`."""
        profile = self.column.profile
        found: dict[str, str] = {"BROKER_PROFILE": profile.name}
        for side, server, link, prefix in (
            (profile.broker, self.broker, self.broker_link, ""),
            (profile.results, self.results, self.results_link, "RESULT_"),
        ):
            if server is None or link is None:
                continue
            url = server.url if direct else _through(server.url, link.port)
            name = address_variable(side.address)
            found[name if side.address == "database" else prefix + name] = url
        return found

    @property
    def owned(self) -> bool:
        """Whether every server was started here."""
        return all(server.owned for server in self.servers.values())

    @property
    def guarantees(self) -> Guarantees:
        """What the profile promises with the broker that it has; with any, where that is not started."""
        return self.column.profile.guarantees.on(self.broker.version if self.broker is not None else "")

    def keys(self, prefix: str) -> str:
        """Return what every key of a baseline begins with in a Redis that is not ours, else an empty string.

        What is not acknowledged is in one key for all the applications of a database, and the shortest
        timeout of any worker holds for all of it: a baseline there would run other people's tasks again.
        """
        on_redis = self.column.baseline and self.column.profile.broker.address == "redis"
        return f"{prefix}:" if on_redis and not self.owned else ""

    def describe(self) -> list[dict[str, str]]:
        """Return what each server is: its system, version, how it was had, and what it was made from."""
        return [
            {
                "system": server.system,
                "version": server.version,
                "how": server.how,
                "origin": server.redact(server.origin),
                "digest": server.digest(),
            }
            for server in self.servers.values()
        ]

    def settings(self) -> list[Setting]:
        """Return the Celery settings of the processes of a case, addresses included."""
        given = {**file_variables(Path("FOLDER-OF-THE-CASE")), **self.variables()}
        environ = {**base_environment(self._environ), **given}
        keyed = with_keys({}, self.keys("PREFIX-OF-THE-CASE"))
        return [
            *self.column.profile.settings(Environment(environ)),
            *(Setting(name, value, "others use this server too") for name, value in keyed.items()),
        ]

    def heal(self) -> None:
        """End every fault that is still on. Raises `ServerUnavailable`."""
        for link in filter(None, (self.broker_link, self.results_link)):
            link.heal()
        for server in self.servers.values():
            server.heal()

    def close(self) -> None:
        """Remove what was started."""
        for link in filter(None, (self.broker_link, self.results_link)):
            link.close()
        with contextlib.ExitStack() as closing:
            for server in self.servers.values():
                closing.callback(server.close)
        self.servers.clear()
        self.broker_link = self.results_link = None
        self.started = False

    def _with_image(self, system: str) -> dict[str, str]:
        if not self.column.image or system != self.column.system(self.column.profile.broker):
            return self._environ
        # Any other server would be shown as one of this image.
        way = self._environ.get(choose.VARIABLE, "").strip()
        if way not in ("", "container"):
            raise ServerUnavailable(f"{self.column.image} is a container's, and {choose.VARIABLE} is {way!r}")
        image_variable = description.load(system).image_variable
        return {**self._environ, choose.VARIABLE: "container", image_variable: self.column.image}


@contextlib.contextmanager
def hosted(column: Column, environ: Mapping[str, str] = os.environ) -> Iterator[Host]:
    """Give a column's servers for a block. Raises `ServerUnavailable`."""
    host = Host(column, environ)
    try:
        host.start()
        yield host
    finally:
        host.close()


def file_variables(folder: Path) -> dict[str, str]:
    """Return the variables of profiles whose broker is a file, for a file in this folder."""
    file = folder / "broker.sqlite3"
    return {"BROKER_PROFILE_EMBEDDED_PATH": str(file)}


def _link_to(server: Server) -> Link:
    parts = urlsplit(server.url)
    return Link(parts.hostname or "127.0.0.1", parts.port or server.description.container_port)


#: Options of an address that have the client verify the name of the host.
_VERIFYING = {"tls": ("true", "1"), "ssl": ("true", "1"), "sslmode": ("verify-full",)}


def _require_one_plain_address(server: Server) -> None:
    """Raise `ServerUnavailable` where a client that is led over a link would not reach this server."""
    problem = _unlinkable(server.url)
    if problem:
        variable = server.description.url_variable
        raise ServerUnavailable(
            f"{variable} {problem}, and the suite leads its processes there over an address of its own; "
            f"give {variable} one host without TLS, or unset it and let a server be started here"
        )


def _unlinkable(url: str) -> str:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    options = {name.lower(): value.lower() for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    verifies = any(options.get(name) in values for name, values in _VERIFYING.items())
    if scheme in ("rediss", "amqps") or verifies or any(name.startswith("ssl_") for name in options):
        return "asks for TLS"
    if scheme.endswith("+srv"):
        return "leaves the hosts to DNS"
    if "replicaset" in options:
        return "names a replica set, whose members say where they are"
    if "," in parts.netloc.rpartition("@")[2] or ";" in url:
        return "names several hosts"
    return "" if parts.hostname and "host" not in options else "names no host of its own"


def _through(url: str, port: int) -> str:
    """Return the URL with the address of a link in place of the server's."""
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    query = parts.query
    if parts.scheme == "mongodb" and "directconnection" not in query.lower():
        # A member of a replica set would tell its clients another way, past the link.
        query = "&".join(filter(None, [query, "directConnection=true"]))
    return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{port}", query=query))
