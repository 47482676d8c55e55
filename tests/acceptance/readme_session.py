"""A reader of README.md at work: a copy of the repository, a shell, and what runs in the background."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from broker_profiles.settings import Environment
from tests.acceptance.running import ROOT, client
from tests.conftest import ServerOf
from tests.waiting import until

#: Systems whose default address, where the README writes it, stands for a server of this run.
SYSTEMS = ("rabbitmq", "redis", "postgresql", "mysql", "mongodb")

#: What a copy of the repository leaves out: what git ignores, and git.
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".env", "secrets", "build", "*.egg-info", "__pycache__", ".*_cache"),
    *(".hypothesis", "*.sqlite3*"),
)

#: Variables of whoever runs the tests that a newcomer does not have.
NOT_INHERITED = re.compile(
    r"(BROKER_PROFILE|CELERY_|FLOWER_|VIRTUAL_ENV|PYTHONPATH|PYTEST_).*"
    r"|(RESULT_)?(RABBITMQ|REDIS|DATABASE|MONGODB|BROKER)_URL(_FILE)?"
)


class Session:
    """A reader at work in a fresh clone: a directory, an environment, and what runs in the background."""

    def __init__(self, folder: Path, server: ServerOf) -> None:
        self.clone = folder / "broker-profiles"
        shutil.copytree(ROOT, self.clone, ignore=NOT_COPIED)
        # What make would install is there already, and must not be installed from this copy.
        (self.clone / ".venv").mkdir()
        (self.clone / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
        (self.clone / ".venv" / ".ready").touch()
        self.folder = self.clone
        self.flower_port = _free_port()
        self.environ = {name: text for name, text in os.environ.items() if not NOT_INHERITED.fullmatch(name)}
        # A default that another program may hold; FLOWER_... is Flower's own way to set an option.
        self.environ["FLOWER_PORT"] = str(self.flower_port)
        self.workers = 0
        self._server = server
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self.adopt(". .venv/bin/activate")

    def shell(self, script: str, *, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a script in the shell to its end."""
        return subprocess.run(
            ["sh", "-c", self.here(script)],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def foreground(self, command: str) -> str:
        """Run a command that ends by itself, and well; return what it printed."""
        done = self.shell(command)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    def adopt(self, command: str) -> None:
        """Run a command that changes the environment of the shell, and keep the change."""
        printed = self.foreground(f"{command} && env -0").split("\0")
        self.environ = dict(pair.split("=", 1) for pair in printed if pair)

    def background(self, command: str) -> None:
        """Start what runs until Ctrl-C, and return when it is ready."""
        log = self.clone.parent / f"{len(self._running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self.here(command)}"],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((command, process, log))
        ready = READY[command.split()[3]]

        def answers() -> bool:
            assert process.poll() is None, f"{command} ended: {log.read_text()[-3000:]}"
            return ready(self)

        until(answers, 40, f"{command} is ready")

    def here(self, text: str) -> str:
        """Return text with the addresses of this run's servers in place of the default ones."""
        for system in SYSTEMS:
            default = Environment({}).address(system).url
            if default in text:
                text = text.replace(default, self._server(system).url)
        return text

    def end(self) -> None:
        """Stop what runs, the last first. Fails if one does not end well."""
        for command, process, log in reversed(self._running):
            process.terminate()
            assert process.wait(30) == 0, f"{command}: {process.returncode}\n{log.read_text()[-3000:]}"

    def kill(self) -> None:
        """Leave nothing behind."""
        for _, process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextlib.contextmanager
def session(folder: Path, server: ServerOf) -> Iterator[Session]:
    running: Session | None = None
    try:
        running = Session(folder, server)
        yield running
        running.end()
    finally:
        if running is not None:
            running.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- when something in the background is ready --------------------------------------------------------


def worker_ready(reader: Session) -> bool:
    """Whether one worker more than before answers a ping."""
    with client({**reader.environ, "BROKER_PROFILE_EMBEDDED_PATH": str(embedded_file(reader))}) as app:
        if len(app.control.ping(timeout=1)) <= reader.workers:
            return False
    reader.workers += 1
    return True


def embedded_file(reader: Session) -> Path:
    """Return the file of the embedded profile that a reader's processes use."""
    return reader.folder / reader.environ.get("BROKER_PROFILE_EMBEDDED_PATH", "broker-profiles.sqlite3")


def beat_ready(reader: Session) -> bool:
    """Whether beat has written down its schedule: the first tick of that is half a minute away."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{embedded_file(reader)}?mode=ro", uri=True)) as file:
            return bool(file.execute("SELECT 1 FROM marks WHERE name LIKE '%/heartbeat'").fetchone())
    except sqlite3.OperationalError:  # the file is not there yet, or has no tables
        return False


def flower_ready(reader: Session) -> bool:
    """Whether Flower answers, and shows its page."""
    return all(http_status(reader, path) == 200 for path in ("/healthcheck", "/workers"))


def http_status(reader: Session, path: str) -> int:
    """Return the status with which Flower answers; 0 where it does not."""
    try:
        url = f"http://127.0.0.1:{reader.flower_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


READY: dict[str, Callable[[Session], bool]] = {
    "worker": worker_ready,
    "beat": beat_ready,
    "flower": flower_ready,
}
