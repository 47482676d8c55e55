"""django-celery-beat's scheduler, any number of it: the schedule in its database, the state in the broker.

An application names it in `beat_scheduler`, for it needs Django, set up, and django-celery-beat.
"""

from __future__ import annotations

from typing import Any

from celery.utils.time import maybe_make_aware
from django_celery_beat import schedulers

from broker_profiles.runtime.beat import Shared, State


class DatabaseScheduler(Shared, schedulers.DatabaseScheduler):  # type: ignore[misc]
    """Sends what the database says, each tick once."""

    def takes(self, entry: Any, state: State) -> bool:
        """Return whether the shared state is the later one: who enables a task again begins anew."""
        last_run_at = maybe_make_aware(entry.last_run_at)
        return bool(state.last_run_at > last_run_at)

    def begin_anew(self, entry: Any) -> None:
        """Leave the entry as it is: the database knows its last run."""
