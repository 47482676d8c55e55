"""Both ways of sending a task give the same bytes, and what the short way does not know goes the long way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, signals
from kombu import pools

from broker_profiles import configure
from broker_profiles.runtime import task as task_module
from broker_profiles.runtime.publish import Shortcut
from broker_profiles.transports import memory
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA

TASK_ID = "3f0f6f0e-0000-4000-8000-000000000001"

Stored = Callable[[], list[bytes]]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Return what is in the queue, and empty it."""
    file = SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF")
    monkeypatch.setattr(memory, "_file", file)

    def take() -> list[bytes]:
        rows = [row[0] for row in file.read("SELECT body FROM messages ORDER BY id")]
        file.write("DELETE FROM messages", ())
        return rows

    return take


@pytest.fixture
def app(stored: Stored) -> Iterator[Celery]:
    app = configure(Celery("t", set_as_current=False), "memory", environ={})
    pools.reset()
    yield app
    app.close()
    pools.reset()


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(Shortcut, "of", classmethod(lambda cls, task: None))


@pytest.fixture
def short_sends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the tasks that were sent the short way."""
    sent: list[str] = []
    send = Shortcut.send

    def note(self: Shortcut, *args: Any) -> Any:
        result = send(self, *args)
        if result is not None:
            sent.append(self._task.name)
        return result

    monkeypatch.setattr(Shortcut, "send", note)
    return sent


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2), {}), ((), {}), ((), {"y": "ü", "x": [1.5, None]}), ((list(range(500)), "x" * 2000), {})],
)
@pytest.mark.parametrize(
    "options", [{}, {"ignore_result": True}, {"serializer": "pickle"}, {"typing": False}]
)
def test_both_ways_give_the_same_bytes(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    app: Celery,
    stored: Stored,
    short_sends: list[str],
    long_way: Callable[[], None],
) -> None:
    task = plain(app, **options)
    short = task.apply_async(args, kwargs, TASK_ID)
    assert short_sends == ["t.plain"]
    long_way()
    task._shortcut = task_module._UNKNOWN
    long = task.apply_async(args, kwargs, TASK_ID)
    assert short_sends == ["t.plain"]
    first, second = stored()
    assert first == second
    assert (short.id, short.ignored, type(short)) == (long.id, long.ignored, type(long))


def plain(app: Celery, name: str = "t.plain", **options: Any) -> Any:
    def task(x: Any = None, y: Any = None) -> None:
        """Take two arguments or none."""

    return app.task(name=name, shared=False, **options)(task)


def test_options_take_the_long_way(app: Celery, stored: Stored, short_sends: list[str]) -> None:
    task = plain(app)
    other = plain(app, "t.other")
    for options in (
        {"countdown": 5},
        {"priority": 9},
        {"expires": 60},
        {"queue": "elsewhere"},
        {"headers": {"x": 1}},
        {"link": other.s()},
        {"link_error": other.s()},
        {"shadow": "name"},
        {"serializer": "json"},
    ):
        task.apply_async((), {}, **options)
        assert len(stored()) == 1, options
    assert short_sends == []


@pytest.mark.parametrize("options", [{"expires": 9}, {"time_limit": 5}])
def test_tasks_with_options_of_their_own_take_the_long_way(
    options: dict[str, Any], app: Celery, stored: Stored, short_sends: list[str]
) -> None:
    plain(app, **options).delay()
    assert len(stored()) == 1
    assert short_sends == []


@pytest.mark.parametrize("name", ["before_task_publish", "after_task_publish"])
def test_signals_are_sent(name: str, app: Celery, stored: Stored, short_sends: list[str]) -> None:
    task = plain(app)
    task.delay()
    heard: list[Any] = []

    def hear(sender: Any = None, **_: Any) -> None:
        heard.append(sender)

    signal = getattr(signals, name)
    signal.connect(hear)
    try:
        task.delay()
    finally:
        signal.disconnect(hear)
    task.delay()
    assert heard == ["t.plain"]
    assert short_sends == ["t.plain"] * 2
    assert len(stored()) == 3


def test_routes_are_followed(app: Celery, stored: Stored, short_sends: list[str]) -> None:
    app.conf.task_routes = {"t.plain": {"queue": "routed"}}
    task = plain(app)
    task.delay()
    assert short_sends == ["t.plain"]
    assert b'"routing_key":"routed"' in stored()[0]
    app.conf.update(task_routes={"t.plain": {"queue": "elsewhere"}})
    task.delay()
    assert b'"routing_key":"elsewhere"' in stored()[0]


def test_a_router_function_is_asked_each_time(app: Celery, stored: Stored, short_sends: list[str]) -> None:
    asked: list[str] = []

    def router(name: str, *_: Any, **__: Any) -> dict[str, str]:
        asked.append(name)
        return {"queue": f"q{len(asked)}"}

    app.conf.task_routes = (router,)
    task = plain(app)
    task.delay()
    task.delay()
    assert asked == ["t.plain"] * 2
    assert short_sends == []
    assert [b'"routing_key":"q1"' in stored()[0]] == [True]


def test_eager_tasks_run_here(app: Celery, stored: Stored) -> None:
    task = plain(app)
    task.delay()
    app.conf.task_always_eager = True
    assert task.delay().state == "SUCCESS"
    assert len(stored()) == 1


def test_arguments_are_checked(app: Celery, stored: Stored) -> None:
    with pytest.raises(TypeError):
        plain(app).delay(1, 2, 3)
    assert stored() == []


def test_a_store_that_is_away_is_tried_again_the_long_way(
    app: Celery, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    from broker_profiles.errors import StoreUnavailable
    from broker_profiles.transports.memory import MemoryStore

    publish = MemoryStore.publish
    failures = [1]

    def fail_once(self: MemoryStore, messages: Any) -> None:
        if failures:
            failures.pop()
            raise StoreUnavailable(store="it", problem="away")
        publish(self, messages)

    monkeypatch.setattr(MemoryStore, "publish", fail_once)
    plain(app).delay()
    assert len(stored()) == 1
