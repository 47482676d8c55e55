"""django-celery-beat's scheduler, any number of it: the schedule in its database, the state in the broker.

An application names it in `beat_scheduler`, for it needs Django, set up, and django-celery-beat.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celery.utils.time import maybe_make_aware
from django.utils import timezone  # type: ignore[import-untyped]
from django_celery_beat import schedulers

from broker_profiles.runtime.beat import Shared, State


class DatabaseScheduler(Shared, schedulers.DatabaseScheduler):  # type: ignore[misc]
    """Sends what the database says, each tick once."""

    def takes(self, entry: Any, state: State) -> bool:
        """Return whether the shared state is the later one: who enables a task again begins anew.

        One that is to run once has run where the shared state is later than the last change of its row. Its
        last run says nothing: with a start time, Django's scheduler takes one from long ago.
        """
        model = entry.model
        if model.one_off and not model.total_run_count and state.last_run_at < _aware(model.date_changed):
            return False
        last_run_at = maybe_make_aware(entry.last_run_at)
        return bool(state.last_run_at > last_run_at)

    def begin_anew(self, entry: Any) -> None:
        """Leave the entry as it is: the database knows its last run."""


def _aware(time: datetime) -> datetime:
    """Return a time of Django's, which is in its own time zone where it is without one."""
    return timezone.make_aware(time) if timezone.is_naive(time) else time
