"""A sign of life that costs nothing to check: workers and beat touch a file, health checks look at its age.

Workers import this module (`celery worker --include=config.compose.health`), beat takes its scheduler from
it (`celery beat --scheduler=config.compose.health:Scheduler`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import beat
from celery.signals import heartbeat_sent

ALIVE = Path("/tmp/alive")  # noqa: S108 - in a container of its own, where it is in memory


@heartbeat_sent.connect
def touch(**_: Any) -> None:
    """Every two seconds, by the loop that takes messages, and only while it is connected to its broker."""
    ALIVE.touch()


class Scheduler(beat.PersistentScheduler):
    """Celery's own, which also shows that it goes round; how often is at least beat's `--max-interval`."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due; return the seconds until the next."""
        ALIVE.touch()
        return super().tick(*args, **kwargs)
