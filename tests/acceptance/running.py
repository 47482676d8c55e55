"""Workers and readers as processes of their own, the way users run them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import pools

from broker_profiles import configure
from tests.waiting import until

ROOT = Path(__file__).parents[2]

#: How many workers there were, for names that no two of them share.
_count = 0


@contextlib.contextmanager
def client(environ: Mapping[str, str]) -> Iterator[Celery]:
    """Give the application as a client in this process, on the profile of an environment."""
    app = configure(Celery("acceptance", include=["tests.acceptance.tasks"]), environ=environ)
    app.conf.task_default_queue = environ.get("ACCEPTANCE_QUEUE", "celery")
    try:
        yield app
    finally:
        app.close()
        pools.reset()


@contextlib.contextmanager
def close_backend(app: Celery) -> Iterator[None]:
    """Close the result store too, which Celery does not."""
    try:
        yield
    finally:
        if hasattr(app.backend, "close"):
            app.backend.close()


class Worker:
    """One `celery worker` process with everything it started."""

    def __init__(self, environ: Mapping[str, str], log: Path, *options: str) -> None:
        global _count
        _count += 1
        self.name = f"w{_count}@test"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "tests.acceptance.app",
                    "worker",
                    f"--hostname={self.name}",
                    "--loglevel=info",
                    *options,
                ],
                env={**os.environ, "PYTHONWARNINGS": "default", **environ},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def children(self) -> list[int]:
        """Return the process ids of its pool."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def wait_ready(self, app: Celery, seconds: float = 40) -> None:
        """Return once it answers a ping."""

        def answers() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the worker ended: {self.log.read_text()[-3000:]}")
            return bool(app.control.ping(destination=[self.name], timeout=1.0))

        until(answers, seconds, "the worker answers a ping")

    def stop(self, seconds: float = 30) -> int:
        """Ask it to end, as a deploy does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill the main process and its pool, with no chance to clean up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def worker(environ: Mapping[str, str], app: Celery, log: Path, *options: str) -> Iterator[Worker]:
    """Run a worker for a block, ready when the block begins."""
    running = Worker(environ, log, *options)
    try:
        running.wait_ready(app)
        yield running
        assert running.stop() == 0, running.log.read_text()[-3000:]
    finally:
        running.kill()


def runs(ledger: Path) -> Counter[str]:
    """Return how often each task id ran."""
    if not ledger.exists():
        return Counter()
    lines = (line.split() for line in ledger.read_text().splitlines())
    return Counter(fields[1] for fields in lines if fields[0] == "run")


def read_elsewhere(environ: Mapping[str, str], ids: list[str], seconds: float) -> dict[str, Any]:
    """Return id -> [state, result] as another process reads them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.reader", str(seconds)],
        input=json.dumps(ids),
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
