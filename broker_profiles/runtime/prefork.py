"""Celery's prefork pool, which at a shutdown waits for what its processes have already been given.

When a consumer ends, Celery forgets every task that no process has said it began. Of those, some are in
the pipe of a process already and will run whatever is forgotten: nobody hears of their end, so they are
never acknowledged and run once more elsewhere, and their process waits half a minute to be heard.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    """A pool that forgets only the tasks that no process has."""

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


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's prefork pool over `AsynPool`."""

    Pool = AsynPool


def _is_given(job: Any) -> bool:
    """Return whether a live process has this task, or a part of its message, and has not begun it yet."""
    process = job._write_to
    return not job._accepted and process is not None and bool(process._is_alive())
