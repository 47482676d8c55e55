"""Several beats on one store: each tick is sent once, whoever is late, gone or cut off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab, schedule
from kombu import Connection, pools

from broker_profiles import configure
from broker_profiles.errors import ConfigurationError, StoreError, StoreUnavailable
from broker_profiles.runtime.beat import Scheduler, State
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.store import Delivery, Sizes

MakeBeat = Callable[..., Scheduler]


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def make(url: Path, clock: Clock) -> Iterator[MakeBeat]:
    """Return a beat of its own application, with its own connection, as another process has."""
    apps: list[Celery] = []

    def make(every: float = 10.0, name: str = "shop", **more: Any) -> Scheduler:
        app = configure(Celery(name), environ={"BROKER_PROFILE_EMBEDDED_PATH": str(url)})
        apps.append(app)
        entry = {"task": "shop.count", "schedule": schedule(timedelta(seconds=every), nowfun=clock)}
        app.conf.beat_schedule = {"count": entry, **more}
        return Scheduler(app, max_interval=300)

    yield make
    for app in apps:
        app.close()
    pools.reset()


@pytest.fixture
def store(url: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore.open(f"sqlite:///{url}", {})
    yield store
    store.close()


def go(*beats: Scheduler) -> None:
    """Let each go round until it has nothing to do; a second round is for what one left to another."""
    for beat in beats:
        for _ in range(20):
            if beat.tick() > 0:
                break
        else:
            pytest.fail("a beat has always something to do")


def sent(store: SQLiteStore) -> int:
    return store.sizes("celery").ready


def taken(store: SQLiteStore) -> list[Delivery]:
    return store.reserve("test", ["celery"], 100)


def test_each_tick_is_sent_once(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    beats = make(), make(), make()
    go(*beats)
    for number in range(1, 11):
        clock.forward(10)
        go(*beats)
        clock.forward(0.2)
        go(*reversed(beats))
        assert sent(store) == number
    counts = [beat.schedule["count"].total_run_count for beat in beats]
    assert counts[0] == 10


def test_nothing_is_sent_before_its_time(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    first, second = make(), make()
    go(first)
    clock.forward(5)
    go(second)
    clock.forward(4.9)
    go(first, second)
    assert sent(store) == 0
    clock.forward(0.2)
    go(first, second)
    assert sent(store) == 1


def test_when_one_is_gone_the_other_sends(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    first, second = make(), make()
    go(first, second)
    clock.forward(10)
    go(first, second)
    for number in range(2, 6):
        clock.forward(10)
        go(second)
        clock.forward(0.2)
        go(second)
        assert sent(store) == number


def test_one_that_was_frozen_sends_nothing_again(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    first, second = make(), make()
    go(first, second)
    for _ in range(3):
        clock.forward(10.2)
        go(second)
        clock.forward(0.2)
        go(second)
    assert sent(store) == 3
    go(first)
    assert sent(store) == 3


def test_one_that_is_frozen_while_it_sends_is_too_late(
    make: MakeBeat, clock: Clock, store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make(), make()
    go(first, second)
    clock.forward(10)
    entry = first.schedule["count"]
    assert first.is_due(entry)[0]
    first.reserve(entry)
    go(second)
    clock.forward(0.2)
    go(second)
    assert sent(store) == 1
    with caplog.at_level(logging.DEBUG):
        first.apply_entry(entry, producer=first.producer)
    assert sent(store) == 1
    assert "was sent by another beat" in caplog.text
    assert first.schedule["count"].last_run_at == second.schedule["count"].last_run_at


def test_a_later_beat_goes_on_where_they_stopped(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    """As after a deploy; what was due meanwhile is sent at once, one tick of it."""
    first = make()
    go(first)
    clock.forward(10)
    go(first)
    first.close()
    clock.forward(35)
    later = make()
    go(later)
    clock.forward(0.2)
    go(later)
    assert sent(store) == 2
    assert later.schedule["count"].total_run_count == 2


def test_a_changed_schedule_counts_from_the_last_run(
    make: MakeBeat, clock: Clock, store: SQLiteStore
) -> None:
    go(make(every=3600))
    clock.forward(30)
    changed = make(every=20)
    go(changed)
    clock.forward(0.2)
    go(changed)
    assert sent(store) == 1


def test_applications_have_schedules_of_their_own(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    shop, bank = make(), make(name="bank")
    go(shop, bank)
    clock.forward(10)
    go(shop, bank)
    assert sent(store) == 2


def test_a_crontab_runs_once_a_minute(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    entry = {"task": "shop.report", "schedule": crontab(nowfun=clock)}
    first, second = make(every=1e6, report=entry), make(every=1e6, report=entry)
    go(first, second)
    for number in range(1, 4):
        clock.forward(59.9)
        go(first, second)
        clock.forward(0.2)
        go(first, second)
        assert sent(store) == number


def test_options_of_an_entry_count(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    fast = schedule(timedelta(seconds=10), nowfun=clock)
    urgent = {"task": "shop.a", "schedule": fast, "options": {"priority": 9, "queue": "other"}}
    later = {"task": "shop.b", "schedule": fast, "options": {"countdown": 60, "queue": "other"}}
    beat = make(every=1e6, urgent=urgent, later=later)
    go(beat)
    clock.forward(10)
    go(beat)
    assert store.sizes("other") == Sizes(ready=1, delayed=1)
    assert store.reserve("test", ["other"], 5)[0].priority == 9


def test_a_tick_for_another_broker_goes_there(
    make: MakeBeat, clock: Clock, store: SQLiteStore, tmp_path: Path
) -> None:
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"
    fast = schedule(timedelta(seconds=10), nowfun=clock)
    transport = "broker_profiles.transports.sqlite:Transport"
    with Connection(elsewhere, transport=transport) as connection:
        there = {"task": "shop.a", "schedule": fast, "options": {"connection": connection}}
        beat = make(every=1e6, there=there)
        go(beat)
        for number in (1, 2):
            clock.forward(10)
            go(beat)
            assert connection.transport.store.sizes("celery").ready == number
    assert sent(store) == 0


@pytest.mark.parametrize("fails", [["marks", "advance"], ["advance"]])
@pytest.mark.parametrize("error", [StoreUnavailable, StoreError])
def test_a_tick_stays_due_while_the_broker_is_away_or_fails(
    make: MakeBeat,
    clock: Clock,
    store: SQLiteStore,
    monkeypatch: pytest.MonkeyPatch,
    fails: list[str],
    error: type[StoreError],
) -> None:
    beat = make()
    go(beat)
    clock.forward(10)
    with monkeypatch.context() as away:

        def fail(*_: Any) -> Any:
            raise error(store="the store", problem="it is away")

        for name in fails:
            away.setattr(SQLiteStore, name, fail)
        assert beat.tick() == 1.0
        assert beat.tick() == 1.0
    assert sent(store) == 0
    go(beat)
    assert sent(store) == 1


def test_a_tick_whose_answer_was_lost_is_not_sent_again(
    make: MakeBeat, clock: Clock, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it is tried again at once, as Celery does, nor in a later round."""
    beat = make()
    go(beat)
    clock.forward(10)
    advance = SQLiteStore.advance
    with monkeypatch.context() as cut:

        def without_answer(self: SQLiteStore, *arguments: Any) -> bool:
            advance(self, *arguments)
            raise StoreUnavailable(store="the store", problem="no answer")

        cut.setattr(SQLiteStore, "advance", without_answer)
        assert beat.tick() == 1.0
    go(beat)
    assert sent(store) == 1
    clock.forward(10)
    go(beat)
    assert sent(store) == 2


def test_an_entry_that_cannot_be_sent_does_not_stop_the_others(
    make: MakeBeat, clock: Clock, store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "task": "shop.bad",
        "schedule": schedule(timedelta(seconds=10), nowfun=clock),
        "args": (object(),),
    }
    beat = make(bad=bad)
    go(beat)
    for number in (1, 2):
        clock.forward(10)
        go(beat)
        assert sent(store) == number
    assert caplog.text.count("Message Error: Couldn't apply scheduled task bad") == 2


def test_an_end_inside_a_tick_leaves_the_connection_to_it(make: MakeBeat, clock: Clock) -> None:
    """Celery saves and closes in the handler of the signal, wherever the tick is at that moment."""
    beat = make()
    go(beat)
    connection = beat.connection
    beat._ticking = True
    beat.close()
    assert connection.connected
    beat._ticking = False
    beat.close()
    assert not connection.connected


def test_the_message_is_as_any_of_beat(make: MakeBeat, clock: Clock, store: SQLiteStore) -> None:
    beat = make()
    go(beat)
    clock.forward(10)
    go(beat)
    (delivery,) = taken(store)
    assert b'"task":"shop.count"' in delivery.body
    assert b'"celery_beat_task":true' in delivery.body


def test_what_a_mark_says() -> None:
    state = State(datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC), 7, "ab12")
    assert State.read(str(state)) == state


def test_another_broker_needs_another_scheduler() -> None:
    app = configure(Celery("shop"), "rabbitmq")
    with pytest.raises(ConfigurationError, match="remove beat_scheduler"):
        Scheduler(app)


def test_the_profile_names_it_and_an_application_may_name_another(tmp_path: Path) -> None:
    environ = {"BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "file.sqlite3")}
    app = configure(Celery("shop"), environ=environ)
    assert app.conf.beat_scheduler == f"{Scheduler.__module__}:{Scheduler.__name__}"
    own = configure(Celery("shop"), environ=environ)
    own.conf.beat_scheduler = "celery.beat:Scheduler"
    assert own.conf.beat_scheduler == "celery.beat:Scheduler"
