"""A sign of life that costs nothing to check: workers and beat touch a file, health checks look at its age.

Workers import this module (`celery worker --include=config.compose.health`), beat takes its scheduler from
it (`celery beat --scheduler=config.compose.health:Scheduler`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent
from kombu.utils.imports import symbol_by_name

ALIVE = Path("/tmp/alive")  # noqa: S108 - in a container of its own, where it is in memory


@heartbeat_sent.connect
def touch(**_: Any) -> None:
    """Every two seconds, by the loop that takes messages, and only while it is connected to its broker."""
    ALIVE.touch()


class _ShowsThatItLives:
    """Goes round as the scheduler after it, and shows that; how often is at least beat's `--max-interval`."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due; return the seconds until the next."""
        ALIVE.touch()
        return super().tick(*args, **kwargs)  # type: ignore[misc]


def Scheduler(app: Any, **options: Any) -> Any:  # noqa: N802 - it stands where beat expects a class
    """Return the scheduler of the profile, which also shows that it goes round."""
    chosen = symbol_by_name(app.conf.beat_scheduler)
    return type("Scheduler", (_ShowsThatItLives, chosen), {})(app, **options)
