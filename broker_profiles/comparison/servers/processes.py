"""The third way: a native process with its own folder and its own ports."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from . import programs, usage
from .base import START_SECONDS, STOP_SECONDS, Server, ServerUnavailable, free_ports
from .description import Account, Native, Site, System, redact
from .guard import freeze_tree, guard, kill_tree, wait_gone
from .own import OwnServer


class ProcessServer(OwnServer):
    """A server that we started: one process and its children, in a session of its own."""

    def __init__(self, system: System, native: Native, site: Site):
        url = system.url(site.account)
        program = site.programs[native.programs[0]]
        super().__init__(system, "process", url, f"process {program}")
        self._native = native
        self._site = site
        self._server: subprocess.Popen[bytes] | None = None
        self._helper: subprocess.Popen[bytes] | None = None
        self._identity = _identity(native.user)

    @property
    def folder(self) -> Path:
        """Where its data, its configuration and its log are."""
        return self._site.folder

    def launch(self) -> None:
        """Make the data folder, start what is needed, wait until it answers."""
        site, native = self._site, self._native
        guard.add("folder", str(site.folder))
        self._register()
        native.write_files(site)
        if uid := self._identity.get("user"):
            for path in (site.folder, *site.folder.iterdir()):
                os.chown(path, uid, self._identity["group"])
        for command, given in native.setup(site):
            self._run(command, given)
        if command := native.helper(site):
            self._helper = self._spawn(command)
        self._start()
        self.wait_ready(START_SECONDS)

    def run(self, *command: str) -> str:
        """Run a program in its environment and return what it printed. Raises `ServerUnavailable`."""
        self._must_be_open("command")
        return self._run(command, "")

    def cpu_seconds(self) -> float | None:
        """Return the processor time of the server and its children."""
        return None if self._server is None else usage.cpu_seconds(self._server.pid)

    def memory(self) -> int | None:
        """Return the proportional set size of the server and its children."""
        return None if self._server is None else usage.memory(self._server.pid)

    def _environment(self) -> dict[str, str]:
        """Nothing of ours: a variable of this shell could point a server at other data."""
        folder = str(self._site.folder)
        places = dict.fromkeys(str(place.parent) for place in self._site.programs.values())
        path = os.pathsep.join([*places, os.environ.get("PATH", os.defpath)])
        own = {"PATH": path, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        return {**own, **self._native.environment(self._site)}

    def _run(self, command: Sequence[str], given: str) -> str:
        result = subprocess.run(
            command,
            input=given,
            cwd=self._site.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=START_SECONDS,
            check=False,
            umask=0o077,
            **self._identity,
        )
        if result.returncode:
            raise ServerUnavailable(f"{Path(command[0]).name} failed: {result.stdout[-300:]}")
        printed: str = result.stdout
        return printed

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._site.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._site.folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C must not stop it before the tests have ended
                umask=0o077,
                **self._identity,
            )
        guard.add("process", str(process.pid))
        return process

    def _start(self) -> None:
        self._server = self._spawn(self._native.command(self._site))

    def _kill(self) -> None:
        if self._server is not None:
            kill_tree(self._server.pid)
            self._reap(self._server)

    def _stop(self) -> None:
        if self._server is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._server.pid).children(recursive=True)
            self._server.send_signal(self._native.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(STOP_SECONDS)
            wait_gone(children, 1.0)
        self._kill()  # what is left

    def _pause(self) -> None:
        if self._server is not None:
            freeze_tree(self._server.pid)

    def _resume(self) -> None:
        if self._server is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._server.pid)
            for process in (*root.children(recursive=True), root):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _ended(self) -> str:
        if self._server is None or self._server.poll() is None:
            return ""
        lines = (self.folder / "output").read_text(errors="replace").split("\n")
        words = " ".join(line for line in lines if line.strip())[-400:]
        return f"it ended with status {self._server.returncode}: …{words}"

    def _close(self) -> None:
        self._kill()
        if self._helper is not None:
            kill_tree(self._helper.pid)
            self._reap(self._helper)
        shutil.rmtree(self.folder, ignore_errors=True)
        guard.drop("folder", str(self.folder))

    @staticmethod
    def _reap(process: subprocess.Popen[bytes]) -> None:
        process.wait(STOP_SECONDS)
        guard.drop("process", str(process.pid))


def start(system: System, environ: Mapping[str, str]) -> Server:
    """A new process of the system's server that answers."""
    native = system.native
    if native is None:
        raise ServerUnavailable(
            f"{system.name} has no native way here: set {system.url_variable}, or run the image "
            f"{system.image}"
        )
    if os.name != "posix":
        raise ServerUnavailable("native servers need a POSIX system")
    found = programs.require(native)
    port, side_port, other_port = free_ports(3)
    account = Account(port)
    folder = Path(tempfile.mkdtemp(prefix=f"broker-profiles-{system.name}-"))
    server = ProcessServer(system, native, Site(folder, account, found, side_port, other_port))
    try:
        server.launch()
    except BaseException as error:  # Ctrl-C too: nothing half made stays
        server.close()
        if not isinstance(error, ServerUnavailable | OSError | subprocess.SubprocessError):
            raise
        raise ServerUnavailable(redact(str(error), server.url)) from None
    return server


def _identity(name: str) -> dict[str, Any]:
    """Arguments of Popen that give root's rights up: PostgreSQL refuses to run with them."""
    if os.geteuid() != 0:
        return {}
    for candidate in (name, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(candidate)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return {}
