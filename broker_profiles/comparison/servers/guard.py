"""Nothing outlives us: a small process that removes what we leave behind.

It reads from a pipe what exists. When the pipe ends while something is still listed, this
interpreter has died without cleaning up (SIGKILL, SIGTERM, out of memory), and the guard removes
processes, containers, volumes and folders. Signal handlers could not do that for SIGKILL, the kernel's
parent-death signal is tied to the *thread* that started the process, and neither reaches
containers. The file is run by its path, so it imports nothing of this package.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Literal

import psutil

Kind = Literal["process", "container", "volume", "folder"]


def kill_tree(pid: int, timeout: float = 10.0) -> None:
    """SIGKILL to a process, its descendants and its process group; wait until they are gone."""
    for process in (found := freeze_tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    wait_gone(found, timeout)


def freeze_tree(pid: int) -> list[psutil.Process]:
    """SIGSTOP to a process and its descendants, parents first: so none is born unseen.

    By tree and not only by process group: the children of PostgreSQL make sessions of their own.
    """
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        waiting = [psutil.Process(pid)]
        while waiting:
            process = waiting.pop()
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                found.append(process)
                waiting += process.children()
    return found


def wait_gone(processes: list[psutil.Process], timeout: float) -> None:
    """Until each has ended; a zombie has, though its parent has not taken notice."""
    deadline = time.monotonic() + timeout
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.01)


class Guard:
    """Our end of the pipe. The process exists only while something is listed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listed: set[tuple[str, str]] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        os.register_at_fork(after_in_child=self._forget)

    def add(self, kind: Kind, key: str) -> None:
        """List before, or at once after, the thing comes into being."""
        with self._lock:
            if self._process is None:
                self._open()
            self._listed.add((kind, key))
            self._send("add", kind, key)

    def drop(self, kind: Kind, key: str) -> None:
        """It is gone."""
        with self._lock:
            if (kind, key) in self._listed:
                self._listed.discard((kind, key))
                self._send("drop", kind, key)
            if not self._listed and self._process is not None:
                os.close(self._pipe)
                self._process.wait()
                self._process = None

    def _open(self) -> None:
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", __file__],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal is for us, not for it
            )
        finally:
            os.close(reading)

    def _send(self, *words: str) -> None:
        # Fails if someone killed the guard: then atexit is what remains.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, json.dumps([*words, os.environ.get("DOCKER_HOST")]).encode() + b"\n")

    def _forget(self) -> None:
        """In a forked child: it owns nothing, and must not keep the pipe open."""
        if self._process is not None:
            self._process.returncode = 0  # not its child: no wait, no warning
            self._process = None
            os.close(self._pipe)
        self._lock = threading.Lock()
        self._listed = set()


def _remove_container(name: str, docker_host: str | None) -> None:
    from docker.errors import APIError, NotFound  # type: ignore[import-untyped, unused-ignore]

    with contextlib.closing(_client(docker_host)) as client:
        for _ in range(30):  # it may be listed and still in the making
            try:
                container = client.containers.get(name)
                with contextlib.suppress(APIError):  # it is not paused
                    container.unpause()
                container.remove(force=True, v=True)
                return
            except NotFound:
                time.sleep(0.1)


def _remove_volume(name: str, docker_host: str | None) -> None:
    from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

    with contextlib.closing(_client(docker_host)) as client, contextlib.suppress(NotFound):
        client.volumes.get(name).remove(force=True)


def _client(docker_host: str | None) -> Any:
    import docker  # type: ignore[import-untyped, unused-ignore]

    return docker.DockerClient(base_url=docker_host) if docker_host else docker.from_env()


def main() -> None:
    """The process: keep the list until the pipe ends, then remove what is on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends by its pipe
    listed: dict[tuple[str, str], str | None] = {}
    for line in sys.stdin.buffer:
        verb, kind, key, docker_host = json.loads(line)
        if verb == "add":
            listed[kind, key] = docker_host
        else:
            listed.pop((kind, key), None)
    for wanted in ("process", "container", "volume", "folder"):  # a place after what writes to it
        for (kind, key), docker_host in listed.items():
            with contextlib.suppress(Exception):  # the next one still has to go
                if kind != wanted:
                    continue
                if kind == "process":
                    kill_tree(int(key))
                elif kind == "container":
                    _remove_container(key, docker_host)
                elif kind == "volume":
                    _remove_volume(key, docker_host)
                else:
                    shutil.rmtree(key)


if __name__ == "__main__":
    main()
else:
    guard = Guard()
