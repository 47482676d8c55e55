"""The second way: a container, by testcontainers.

Of testcontainers the plain container class is used, not the one of each system: those wait in
ways of their own, publish random ports (which change at a restart) and need more drivers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from . import usage
from .base import START_SECONDS, STOP_SECONDS, Server, ServerUnavailable, free_ports
from .description import Account, System, Tables, redact
from .guard import guard
from .own import OwnServer
from .small_disk import TABLES, SmallDisk

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

ENGINE_SECONDS = 60
REGISTRY_SECONDS = 10
DEFAULT_ENGINE = "npipe://" if os.name == "nt" else "unix:///var/run/docker.sock"
#: How often a container is told to freeze before it counts as one that cannot be.
FREEZES = 5
LABELS = {"broker-profiles": "test"}


class ContainerServer(OwnServer):
    """A server in a container that keeps its writable layer and its port over a restart."""

    def __init__(self, system: System, container: DockerContainer, name: str, account: Account):
        url = system.url(account)
        super().__init__(system, "container", url, f"container {container.image}")
        self._testcontainer = container
        self._name = name
        self._disk = SmallDisk(container, name, LABELS) if system.tables is not None else None

    @property
    def name(self) -> str:
        """The container's name, for the engine's own commands."""
        return self._name

    def digest(self) -> str:
        """Return the image's id, which is the digest of its configuration."""
        return str(self._testcontainer.get_wrapped_container().image.id)

    def run(self, *command: str) -> str:
        """Run a program in the container and return what it printed. Raises `ServerUnavailable`."""
        self._must_be_open("command")
        status, output = self._testcontainer.get_wrapped_container().exec_run(list(command))
        printed: str = output.decode()
        if status:
            raise ServerUnavailable(self.redact(f"{command[0]} failed: {printed[-300:]}"))
        return printed

    def cpu_seconds(self) -> float | None:
        """Return the processor time of its processes; none where the engine has a kernel of its own."""
        pid = self._visible()
        # The engine could say it too, but takes a second to, and this is asked for very often.
        return None if pid is None else usage.cpu_seconds(pid)

    def memory(self) -> int | None:
        """Return the proportional set size of its processes; the engine's figure where we may not look."""
        pid = self._visible()
        if pid is not None:
            with contextlib.suppress(psutil.AccessDenied):
                return usage.memory(pid)
        container = self._testcontainer.get_wrapped_container()
        found: dict[str, Any] = container.stats(stream=False)["memory_stats"]
        used: int = found["usage"] - found["stats"].get("inactive_file", 0)
        return used

    def _visible(self) -> int | None:
        """Return its first process, none where the engine has a kernel of its own."""
        container = self._testcontainer.get_wrapped_container()
        container.reload()
        pid = int(container.attrs["State"]["Pid"])
        # A number alone proves nothing: in a virtual machine's engine it is of another system.
        with contextlib.suppress(OSError):
            if str(container.id) in Path(f"/proc/{pid}/cgroup").read_text():
                return pid
        return None

    def launch(self) -> None:
        """Create and start; listed first, so that it goes even if we die in between."""
        guard.add("container", self._name)
        self._register()
        if self._disk is not None:
            self._disk.create(self._testcontainer)
        self._testcontainer.start()
        self.wait_ready(START_SECONDS)

    def start(self) -> None:
        """Start again with the same data on the same port; returns when it answers."""
        try:
            super().start()
        except ServerUnavailable:
            if not (self.disk_full and self._ended()):
                raise
            self.heal()  # it found no room to recover, so it waits for somebody to make some

    def heal(self) -> None:
        """Whatever was done to it, running and answering again."""
        full = self.disk_full
        if full and self._disk is not None:
            self._disk.empty()
        try:
            super().heal()
        except ServerUnavailable:
            if not (full and self._ended()):
                raise
            self.state = "stopped"  # by itself, for want of room
            super().heal()

    @property
    def disk_full(self) -> bool:
        """Whether the disk of its tables has no room, so that it is full in earnest."""
        return self._disk is not None and self._disk.full

    def fill(self) -> Callable[[], None] | None:
        """Fill the disk of its tables; where they cannot be moved to a small one, as its system knows how."""
        self._must_be_open("fill")
        if self._disk is not None and self.description.tables is not None:
            with contextlib.suppress(ServerUnavailable):
                return self._fill(self._disk, self.description.tables)
        return super().fill()

    def _fill(self, disk: SmallDisk, tables: Tables) -> Callable[[], None]:
        def give_back() -> None:
            self.heal()
            tables.move(self, "")
            disk.release()

        disk.hold()
        try:
            self.run("install", "-d", "-o", tables.user, "-m", "700", TABLES)
            tables.move(self, TABLES)
            disk.fill()
        except ServerUnavailable:
            give_back()
            raise
        return give_back

    def _kill(self) -> None:
        from docker.errors import APIError  # type: ignore[import-untyped, unused-ignore]

        container = self._testcontainer.get_wrapped_container()
        if self.state == "paused":  # engines differ in whether they kill what is frozen
            container.unpause()
        try:
            container.kill()
        except APIError:
            if not (self.disk_full and self._ended()):  # it may have died of that
                raise
        container.wait(timeout=STOP_SECONDS)

    def _stop(self) -> None:
        self._testcontainer.get_wrapped_container().stop(timeout=int(STOP_SECONDS))

    def _start(self) -> None:
        self._testcontainer.get_wrapped_container().start()

    def _pause(self) -> None:
        from docker.errors import APIError

        container = self._testcontainer.get_wrapped_container()
        for left in reversed(range(FREEZES)):
            try:
                container.pause()
                return
            except APIError as error:
                # The engine gives up where a process stays for a moment where it cannot be frozen.
                if "unable to freeze" not in str(error) or not left:
                    raise

    def _resume(self) -> None:
        self._testcontainer.get_wrapped_container().unpause()

    def _ended(self) -> str:
        container = self._testcontainer.get_wrapped_container()
        container.reload()
        if container.status not in ("exited", "dead"):
            return ""
        return f"the container has ended; its last words: {container.logs(tail=3).decode()}"

    def _close(self) -> None:
        from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

        if self.state == "paused":
            self._resume()
        with contextlib.suppress(NotFound):
            self._testcontainer.stop()  # removes it with its anonymous volumes
        if self._disk is not None:
            self._disk.remove()
        self._testcontainer.get_docker_client().client.close()
        guard.drop("container", self._name)


def start(system: System, environ: Mapping[str, str]) -> Server:
    """A new container of the system's image that answers."""
    image = environ.get(system.image_variable, "").strip() or system.image
    container = _container(image, environ)
    account = Account(free_ports(1)[0])
    name = f"broker-profiles-{system.name}-{secrets.token_hex(4)}"
    server = ContainerServer(system, container, name, account)
    try:
        _require_image(container, image, system.image_variable)
        for variable, value in system.environment(account).items():
            container.with_env(variable, value)
        if command := system.command(account):
            container.with_command(list(command))
        container.with_name(name)
        # testcontainers has no way to say the address, and hands this on as it is.
        container.ports = {f"{system.container_port}/tcp": ("127.0.0.1", account.port)}  # type: ignore[dict-item]
        container.with_kwargs(labels=LABELS, stop_signal=system.stop_signal)
        server.launch()
    except BaseException as error:  # Ctrl-C too: nothing half made stays
        with contextlib.suppress(Exception):
            server.close()
        if isinstance(error, ServerUnavailable) or not isinstance(error, Exception):
            raise
        # The engine, the network below it: one line, and the next way is tried.
        raise ServerUnavailable(redact(f"{image}: {error}", server.url)) from None
    return server


def _container(image: str, environ: Mapping[str, str]) -> DockerContainer:
    """A container object on an engine that answers and is on this machine."""
    try:
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.docker_client import get_docker_host
    except ImportError:
        raise ServerUnavailable("testcontainers is missing: pip install 'broker-profiles[servers]'") from None
    # Its reaper is one more image to pull; the guard does that work. Who sets it knows better.
    if "TESTCONTAINERS_RYUK_DISABLED" not in environ:
        testcontainers_config.ryuk_disabled = True
    try:
        _knock(get_docker_host() or DEFAULT_ENGINE)
        container = DockerContainer(image, docker_client_kw={"timeout": ENGINE_SECONDS})
    except Exception as error:  # docker's, requests' and urllib3's: no common root
        raise ServerUnavailable(
            f"no container engine answers (start Docker, or set DOCKER_HOST): {_short(error)}"
        ) from None
    client = container.get_docker_client().client
    engine = urlsplit(client.api.base_url).hostname or "localhost"
    if engine not in ("localhost", "127.0.0.1", "localnpipe"):
        client.close()
        raise ServerUnavailable(
            f"the container engine is on another machine ({engine}): its ports are not on 127.0.0.1"
        )
    return container


def _knock(host: str) -> None:
    """Fail where nothing listens on the engine's socket: docker's client would leak its own."""
    scheme, _, path = host.partition("://")
    if scheme == "unix" and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(ENGINE_SECONDS)
            knocking.connect(path)


def _require_image(container: DockerContainer, image: str, variable: str) -> None:
    """Fail fast where the image is neither here nor to be had: a pull could hang for minutes."""
    from docker import DockerClient  # type: ignore[import-untyped, unused-ignore]
    from docker.errors import ImageNotFound  # type: ignore[import-untyped, unused-ignore]

    client = container.get_docker_client().client
    with contextlib.suppress(ImageNotFound):
        client.images.get(container.image)
        return
    host = os.environ.get("DOCKER_HOST")
    options = {"timeout": REGISTRY_SECONDS}
    asking = DockerClient(base_url=host, **options) if host else DockerClient.from_env(**options)
    with contextlib.closing(asking):
        try:
            asking.images.get_registry_data(container.image)  # by the engine: it has the proxies
        except Exception as error:
            raise ServerUnavailable(
                f"the image {image} is not here and cannot be pulled: docker pull {image}, or name "
                f"another in {variable} ({_short(error)})"
            ) from None
    client.images.pull(container.image)


def _short(error: Exception) -> str:
    """The last part of an engine's nested message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 120 else f"…{text[-120:]}"
