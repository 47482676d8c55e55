"""Celery's prefork pool, which at a shutdown waits for what its processes have already been given, and
notices at once that one has died.

When a consumer ends, Celery forgets every task that no process has said it began. Of those, some are in
the pipe of a process already and will run whatever is forgotten: nobody hears of their end, so they are
never acknowledged and run once more elsewhere, and their process waits half a minute to be heard.

The pipe of a process that dies closes a moment before the process can be waited for. Celery looks once
when it closes; where that is in this moment, the process seems to live, and Celery looks again only in
its round of every five seconds. Until then its task is not known to be lost, and nothing replaces it.
"""

from __future__ import annotations

import time
from typing import Any

from celery.concurrency import asynpool, prefork

#: How long a process lasts at most once its pipe has closed. Only a task that closes it reaches this.
DEATH_SECONDS = 1.0


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    """A pool that forgets only the tasks that no process has, and misses no death."""

    def flush(self) -> None:
        """Forget what waits to be given to a process, and finish what is being written to one."""
        given = {number: job for number, job in self._cache.items() if _is_given(job)}
        for number in given:
            del self._cache[number]
        try:
            super().flush()
        finally:
            self._cache.update(given)
            # Not free for another task until these have run.
            self._busy_workers.update(job._write_to.inqW_fd for job in given.values())

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Clean up after a process whose pipe has closed, and replace it."""
        # One that never was ready for work is left to Celery's rounds: what dies at its start would
        # otherwise be started as fast as the machine can, again and again.
        if self._fileno_to_inq.get(proc.inqW_fd) is proc:
            deadline = time.monotonic() + DEATH_SECONDS
            while proc._is_alive() and time.monotonic() < deadline:
                time.sleep(0.001)
        super()._event_process_exit(hub, proc)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's prefork pool over `AsynPool`."""

    Pool = AsynPool


def _is_given(job: Any) -> bool:
    """Return whether a live process has this task, or a part of its message, and has not begun it yet."""
    process = job._write_to
    return not job._accepted and process is not None and bool(process._is_alive())
