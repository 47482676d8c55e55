"""Dead letters by the public functions, over a real SQLite store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import pools

from broker_profiles import (
    DeadLetter,
    configure,
    discard_dead_letters,
    list_dead_letters,
    replay_dead_letters,
)
from broker_profiles.errors import NoDeadLetters, StoreError
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, UNREADABLE, Outgoing, Sizes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


@pytest.fixture
def app(path: Path) -> Iterator[Celery]:
    environ = {"BROKER_PROFILE_EMBEDDED_PATH": str(path)}
    app = configure(Celery("t", set_as_current=False), "embedded", environ=environ)
    pools.reset()
    yield app
    app.close()
    pools.reset()


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore.open(f"sqlite:///{path}", {})
    yield store
    store.close()


def die(store: SQLiteStore, app: Celery, *, queue: str = "q", times: int = 5, **options: Any) -> None:
    """Send a task and let it be delivered so often, then reserve once more."""
    app.send_task("shop.pay", (1,), queue=queue, **options)
    for _ in range(times + 1):
        for delivery in store.reserve("c", [queue], 1):
            store.release([delivery.receipt], counted=True)


def test_a_dead_letter_says_which_task_died_where_when_and_why(app: Celery, store: SQLiteStore) -> None:
    die(store, app, task_id="the-id")
    (letter,) = list_dead_letters(app)
    assert (letter.queue, letter.task, letter.task_id) == ("q", "shop.pay", "the-id")
    assert (letter.reason, letter.deliveries) == (DELIVERIES_EXHAUSTED, 5)
    assert letter.detail == "delivered 5 times and never finished"
    assert abs(datetime.now(UTC) - letter.died_at) < timedelta(minutes=1)


def test_they_are_listed_by_queue_oldest_first_and_so_many(app: Celery, store: SQLiteStore) -> None:
    for queue, id_ in (("q", "1"), ("other", "2"), ("q", "3")):
        die(store, app, queue=queue, task_id=id_)
    assert [letter.task_id for letter in list_dead_letters(app)] == ["1", "2", "3"]
    assert [letter.task_id for letter in list_dead_letters(app, "q")] == ["1", "3"]
    assert [letter.task_id for letter in list_dead_letters(app, limit=2)] == ["1", "2"]
    assert list_dead_letters(app, "unknown") == []


def test_a_replayed_one_is_a_new_message(app: Celery, store: SQLiteStore) -> None:
    die(store, app, task_id="again")
    (letter,) = list_dead_letters(app)
    assert replay_dead_letters(app, [letter.id, letter.id, "no such id"]) == 1
    assert list_dead_letters(app) == []
    (delivery,) = store.reserve("c", ["q"], 10)
    assert delivery.deliveries == 1
    assert b"again" in delivery.body
    assert replay_dead_letters(app, [letter.id]) == 0


def test_a_discarded_one_is_gone(app: Celery, store: SQLiteStore) -> None:
    for id_ in ("1", "2"):
        die(store, app, task_id=id_)
    first, second = list_dead_letters(app)
    assert discard_dead_letters(app, [first.id]) == 1
    assert list_dead_letters(app) == [second]
    assert discard_dead_letters(app, [first.id]) == 0
    assert store.sizes("q") == Sizes(dead=1)


def test_no_ids_are_no_work(app: Celery) -> None:
    assert replay_dead_letters(app, []) == discard_dead_letters(app, iter([])) == 0


@pytest.mark.parametrize("body", [b"\xff\x00 not ours", b"", b"\x01\x00\x00\x00\x02{}"], ids=repr)
def test_bytes_that_are_no_message_are_listed_too(body: bytes, app: Celery, store: SQLiteStore) -> None:
    store.publish([Outgoing("q", body)])
    store.set_aside([store.reserve("c", ["q"], 1)[0].receipt], UNREADABLE, "why")
    (letter,) = list_dead_letters(app)
    assert (letter.task, letter.task_id, letter.reason, letter.detail) == ("", "", UNREADABLE, "why")


def test_headers_of_wrong_types_are_no_names(app: Celery, store: SQLiteStore) -> None:
    with app.producer_or_acquire() as producer:
        producer.publish({}, routing_key="q", exchange="", headers={"task": ["x"], "id": 5})
    store.set_aside([store.reserve("c", ["q"], 1)[0].receipt], UNREADABLE)
    (letter,) = list_dead_letters(app)
    assert (letter.task, letter.task_id) == ("", "")


def test_a_dead_letter_cannot_be_changed(app: Celery, store: SQLiteStore) -> None:
    die(store, app)
    (letter,) = list_dead_letters(app)
    with pytest.raises(AttributeError):
        letter.queue = "other"  # type: ignore[misc]
    assert isinstance(letter, DeadLetter)


@pytest.mark.parametrize("profile", ["rabbitmq:fast", "stock-rabbitmq", "stock-redis", "stock-sqlalchemy"])
def test_a_profile_without_dead_letters_says_so_before_it_connects(profile: str) -> None:
    # Nothing listens there: it must not matter.
    nowhere = {"RABBITMQ_URL": "amqp://127.0.0.1:1//", "REDIS_URL": "redis://127.0.0.1:1/0"}
    app = configure(Celery("t", set_as_current=False), profile, environ=nowhere)
    for ask in (list_dead_letters, lambda app: replay_dead_letters(app, ["1"])):
        with pytest.raises(NoDeadLetters, match=f"'{profile}' keeps no dead letters"):
            ask(app)


def test_an_application_without_a_profile_names_its_broker() -> None:
    app = Celery("t", broker="memory://", set_as_current=False)
    with pytest.raises(NoDeadLetters, match="'memory' keeps no dead letters"):
        discard_dead_letters(app, ["1"])


def test_a_store_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    environ = {"BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path)}
    app = configure(Celery("t", set_as_current=False), "embedded", environ=environ)
    with pytest.raises(StoreError, match=tmp_path.name):
        list_dead_letters(app)
