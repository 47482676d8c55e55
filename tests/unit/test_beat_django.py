"""django-celery-beat's schedule with several beats on one store: what its database says, each tick once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import django
import pytest
from celery import Celery
from django.conf import settings
from django.core.management import call_command
from kombu import pools

from broker_profiles import configure
from broker_profiles.transports.sqlite import SQLiteStore
from tests.waiting import until

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django_celery_beat"],
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    yield
    from django.db import connections

    connections["default"].close()


@pytest.fixture
def task() -> Iterator[Any]:
    """A task that is due since half an hour."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    interval, _ = IntervalSchedule.objects.get_or_create(every=30, period=IntervalSchedule.MINUTES)
    task = PeriodicTask.objects.create(name="count", task="shop.count", interval=interval, priority=7)
    PeriodicTask.objects.update(last_run_at=datetime.now(UTC) - HOUR)
    yield task
    PeriodicTask.objects.all().delete()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore.open(f"sqlite:///{tmp_path / 'store.sqlite3'}", {})
    yield store
    store.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    from broker_profiles.runtime.beat_django import DatabaseScheduler

    apps: list[Celery] = []

    def make() -> Any:
        environ = {"BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "store.sqlite3")}
        app = configure(Celery("shop"), environ=environ)
        app.conf.result_expires = None
        apps.append(app)
        return DatabaseScheduler(app)

    yield make
    for app in apps:
        app.close()
    pools.reset()


def go(*beats: Any) -> None:
    """Let each go round until it has nothing to do for a while."""
    for beat in beats:
        for _ in range(20):
            if beat.tick() > 1:
                break


def test_each_tick_is_sent_once(make: Callable[[], Any], task: Any, store: SQLiteStore) -> None:
    beats = make(), make(), make()
    go(*beats, *beats)
    assert store.sizes("celery").ready == 1
    (delivery,) = store.reserve("test", ["celery"], 5)
    assert delivery.priority == 7
    for beat in beats:
        beat.sync()
    task.refresh_from_db()
    assert task.total_run_count == 1
    assert datetime.now(UTC) - task.last_run_at < HOUR / 2


def test_a_beat_that_knows_only_an_old_run_sends_nothing(
    make: Callable[[], Any], task: Any, store: SQLiteStore
) -> None:
    """As after one that was killed before it wrote its last run into the database."""
    from django_celery_beat.models import PeriodicTask

    go(make())
    assert store.sizes("celery").ready == 1
    PeriodicTask.objects.update(last_run_at=datetime.now(UTC) - HOUR)
    later = make()
    go(later, later)
    assert store.sizes("celery").ready == 1


def test_one_that_begins_its_heap_anew_sends_nothing_again(
    make: Callable[[], Any], task: Any, store: SQLiteStore
) -> None:
    beat = make()
    go(beat)
    beat._heap = None
    go(beat)
    assert store.sizes("celery").ready == 1


def test_a_task_that_is_enabled_again_begins_anew(
    make: Callable[[], Any], task: Any, store: SQLiteStore
) -> None:
    from django_celery_beat.models import PeriodicTask

    first = make()
    first._begin(first._store)
    PeriodicTask.objects.update(last_run_at=datetime.now(UTC))
    again = make()
    go(again, again)
    assert store.sizes("celery").ready == 0


@pytest.mark.parametrize("new_beat", [False, True])
def test_a_one_off_task_that_is_enabled_again_runs_once_more(
    make: Callable[[], Any], task: Any, store: SQLiteStore, new_beat: bool
) -> None:
    """With a start time: the entry's last run is long ago then, so that it is due."""
    from django_celery_beat.models import IntervalSchedule

    task.interval, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    task.one_off, task.start_time, task.last_run_at = True, datetime.now(UTC) - HOUR, None
    beat = make()
    for number in (1, 2):
        task.enabled = True
        task.save()
        beat = make() if new_beat else beat
        until(partial(disabled_by, beat, task), 30, "the task ran, and is disabled")
        assert store.sizes("celery").ready == number


def test_a_one_off_task_whose_beat_was_killed_after_it_ran_does_not_run_again(
    make: Callable[[], Any], task: Any, store: SQLiteStore
) -> None:
    task.one_off, task.start_time, task.last_run_at = True, datetime.now(UTC) - HOUR, None
    task.save()
    go(make())
    assert store.sizes("celery").ready == 1
    later = make()
    go(later, later)
    task.refresh_from_db()
    assert not task.enabled
    assert store.sizes("celery").ready == 1


def disabled_by(beat: Any, task: Any) -> bool:
    """Let a beat go round; return whether a task is disabled."""
    go(beat)
    beat.sync()
    task.refresh_from_db()
    return not task.enabled
