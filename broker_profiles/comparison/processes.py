"""The suite's own processes: each started with a log, ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from broker_profiles.comparison.servers.guard import guard, kill_tree
from broker_profiles.comparison.variables import base_environment
from broker_profiles.errors import redact

#: The command `celery` for the application of the comparison.
CELERY = (sys.executable, "-m", "celery", "-A", "broker_profiles.comparison.workload")

#: How long the kernel may take to end a process that was killed, in seconds.
_ENDS_WITHIN = 10.0


def runs(process: subprocess.Popen[Any]) -> bool:
    """Return whether a process of ours runs; not one that was killed a moment ago."""
    if process.poll() is not None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        if psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            return True
    # Killed: its first thread has ended, and it cannot be waited for until the others have.
    process.wait(_ENDS_WITHIN)
    return False


class Process:
    """A command in a session of its own, with everything it started."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**base_environment(), **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.add("process", str(self._process.pid))

    @property
    def pid(self) -> int:
        """The main process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return runs(self._process)

    def children(self) -> list[int]:
        """Return the processes that it started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL, to the main process and all it started at once: as a machine that vanishes."""
        kill_tree(self.pid)
        self._process.wait(10)
        guard.drop("process", str(self.pid))

    def kill_main(self) -> None:
        """SIGKILL, to the main process alone; what it started is left without a parent."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP, to the main process and all it started."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, to the main process and all it started."""
        os.killpg(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, to the main process: as a deploy does."""
        self._process.terminate()

    def wait(self, seconds: float) -> int | None:
        """Return the exit status once it has ended, none where it has not in so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def memory(self) -> int:
        """Return the proportional set size of all its processes, in bytes."""
        total = 0
        for pid in (self.pid, *self.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_full_info().pss
        return total

    def own_memory(self) -> int:
        """Return the unique set size of all its processes, in bytes: what ends with them.

        Unlike their share of what they have in common with others, it does not change with the others.
        """
        total = 0
        for pid in (self.pid, *self.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_full_info().uss
        return total

    def output(self) -> str:
        """Return all it has written so far."""
        return self.log.read_text(errors="replace")

    def last_words(self) -> str:
        """Return the end of its log."""
        return redact(self.output())[-2000:]
