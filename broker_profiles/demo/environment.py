"""What the demonstration needs before it can begin: the task package, and servers where there are none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import broker_profiles
from broker_profiles.errors import BrokerProfilesError, ConfigurationError, UnsupportedCombination
from broker_profiles.profile import Broker, Profile, ResultStore
from broker_profiles.settings import Environment, address_variable

#: Seconds in which a server on this machine answers if it is there.
_ANSWER = 1.0


class NoTaskPackage(ConfigurationError):
    """The demo needs the repository, and {folder!r} has no `tasks`: clone it, then pip install -e it."""


class NoServer(BrokerProfilesError):
    """No {system} answers at its default address and none could be started; set {variable}: {reason}"""


def repository() -> Path:
    """Return the folder that holds the package `tasks`. Raises `NoTaskPackage`."""
    folder = Path(broker_profiles.__file__).resolve().parent.parent
    if not (folder / "tasks" / "app.py").is_file():
        raise NoTaskPackage(folder=str(folder))
    return folder


def import_path(folder: Path) -> str:
    """Return the `PYTHONPATH` of a worker: `tasks` of the repository before any `tasks` right here."""
    # Celery puts the working directory first unless it is on the path already.
    others = [str(folder), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, others))


def require_workers(profile: Profile) -> None:
    """Raise `UnsupportedCombination` where workers of other processes could not show a result."""
    if profile.broker.in_process:
        problem = "the demo starts workers, and this broker lives in one process"
        raise UnsupportedCombination(profile=profile.name, problem=problem)


@contextlib.contextmanager
def servers_for(
    profile: Profile, environment: Environment, say: Callable[[str], object]
) -> Iterator[dict[str, str]]:
    """Start the servers that a profile needs and nobody has named; yield the variables that name them.

    A server that an address variable names, or that answers at the default address, is used as it is.
    """
    variables: dict[str, str] = {}
    with contextlib.ExitStack() as started:
        running: dict[str, str] = {}
        for side, prefix in ((profile.broker, ""), (profile.results, "RESULT_")):
            system = side.system
            if system is None or not _missing(side, environment):
                continue
            if system not in running:
                running[system] = started.enter_context(_server(system, side, say))
            variables[prefix + address_variable(side.address)] = running[system]
        yield variables


def _missing(side: Broker | ResultStore, environment: Environment) -> bool:
    assert side.address is not None
    address = environment.address(side.address, results=isinstance(side, ResultStore))
    if address.variable != "default":
        return False
    parts = urlsplit(address.url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_ANSWER).close()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _server(system: str, side: Broker | ResultStore, say: Callable[[str], object]) -> Iterator[str]:
    # Only a demo without a server needs this, and only this needs containers.
    from broker_profiles.comparison.servers import ServerUnavailable, provide

    try:
        server = provide(system, os.environ)
    except ServerUnavailable as error:
        variable = address_variable(side.address)
        raise NoServer(system=system, reason=error, variable=variable) from error
    with contextlib.closing(server):
        say(f"Started {server.describe()}")
        yield server.url
