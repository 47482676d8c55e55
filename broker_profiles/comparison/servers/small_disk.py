"""A disk of a few megabytes in a container, so that its server can really run out of room.

It is a volume in memory, there from the container's start, for nothing can be mounted into one that runs.
Empty it costs nothing. What is on it is gone as soon as no container has it: while a server uses it, a
second container that only sleeps has it too, and the server may be killed and started.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .base import ServerUnavailable
from .guard import guard

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

SIZE = "64m"
PLACE = "/small-disk"  # in the server's container and in the sleeper's

#: Where the server's tables are, and what leaves them no room.
TABLES, FILLER = f"{PLACE}/tables", f"{PLACE}/filler"


class SmallDisk:
    """The small disk of one container, and what keeps it while that one is dead."""

    def __init__(self, container: DockerContainer, name: str, labels: dict[str, str]) -> None:
        self._client: Any = container.get_docker_client().client
        self._image = container.image
        self._volume, self._sleeper = f"{name}-disk", f"{name}-sleeper"
        self._labels = labels
        self.full = False

    def create(self, container: DockerContainer) -> None:
        """Make it, and have it in a container that is not made yet."""
        guard.add("volume", self._volume)
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={SIZE}"}
        self._client.volumes.create(self._volume, driver="local", driver_opts=options, labels=self._labels)
        container.with_volume_mapping(self._volume, PLACE, "rw")

    def hold(self) -> None:
        """Keep what is on it from now on, whatever happens to the server. Once or often."""
        self.release()
        guard.add("container", self._sleeper)
        self._client.containers.run(
            self._image,
            ["infinity"],
            entrypoint="sleep",
            name=self._sleeper,
            volumes={self._volume: {"bind": PLACE, "mode": "rw"}},
            network_mode="none",
            labels=self._labels,
            detach=True,
        )

    def fill(self) -> None:
        """Write a file until not one byte has room. Raises `ServerUnavailable`."""
        self.full = True
        if self._run("sh", "-c", f"cat /dev/zero >{FILLER}") == 0:
            raise ServerUnavailable(f"{FILLER} was written without an end")

    def empty(self) -> None:
        """Give the room back; needs no server."""
        self._run("rm", "-f", FILLER)
        self.full = False

    def release(self) -> None:
        """End `hold`: what is on it lasts only as long as the server runs. Once or often."""
        from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

        with contextlib.suppress(NotFound):
            self._client.containers.get(self._sleeper).remove(force=True, v=True)
        guard.drop("container", self._sleeper)

    def remove(self) -> None:
        """Leave nothing of it, once the server's container is gone."""
        from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

        self.release()
        with contextlib.suppress(NotFound):
            self._client.volumes.get(self._volume).remove(force=True)
        guard.drop("volume", self._volume)

    def _run(self, *command: str) -> int:
        """Run a program in the sleeper, and return its status: the server may be dead."""
        return int(self._client.containers.get(self._sleeper).exec_run(list(command)).exit_code)
