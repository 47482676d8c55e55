"""Messages no worker can use become dead letters with their reason, and the worker goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord

from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.store import REJECTED, UNKNOWN_TASK, UNREADABLE, Outgoing, Store
from tests.acceptance.running import client, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.waiting import until


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("messages")
    return {
        "BROKER_PROFILE": "embedded",
        "BROKER_PROFILE_EMBEDDED_PATH": str(folder / "embedded.sqlite3"),
        "ACCEPTANCE_LEDGER": str(folder / "ledger"),
    }


@pytest.fixture(scope="module")
def app(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    log = tmp_path_factory.mktemp("log") / "worker.log"
    with client(environ) as app, worker(environ, app, log, "--concurrency=1"):
        yield app


@pytest.fixture
def store(environ: dict[str, str], app: Celery) -> Iterator[Store]:
    store = SQLiteStore.open(f"sqlite:///{environ['BROKER_PROFILE_EMBEDDED_PATH']}", {})
    store.discard([letter.id for letter in store.dead_letters()])
    yield store
    store.close()


def send(app: Celery, body: Any, *, content_type: str = "application/json", **headers: Any) -> None:
    """Send a message as a foreign or broken producer would."""
    task_headers = {"id": "1", "task": "acceptance.noop", "lang": "py", "root_id": "1", **headers}
    with app.producer_or_acquire() as producer:
        producer.publish(
            body if isinstance(body, bytes | str) else json.dumps(body),
            routing_key="celery",
            exchange="",
            content_type=content_type,
            content_encoding="utf-8",
            headers={name: value for name, value in task_headers.items() if value is not None},
        )


def the_dead_letter(store: Store) -> Any:
    (letter,) = until(store.dead_letters, 20, "there is a dead letter")
    return letter


def test_bytes_that_are_no_message(app: Celery, store: Store) -> None:
    store.publish([Outgoing("celery", b"\xff\x00 not ours")])
    letter = the_dead_letter(store)
    assert (letter.reason, letter.body) == (UNREADABLE, b"\xff\x00 not ours")
    assert "not sent by broker-profiles" in letter.detail
    assert tasks_of(app)["add"].delay(1, 2).get(timeout=20) == 3


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"body": "{not json", "task": None}, UNREADABLE),
        ({"body": [[], {}, {}], "task": "no.such.task"}, UNKNOWN_TASK),
        ({"body": [[], {}, {}], "task": None, "id": None}, REJECTED),
        ({"body": b"\x80\x04.", "content_type": "application/x-python-serialize", "task": None}, UNREADABLE),
    ],
)
def test_messages_no_worker_can_use(message: dict[str, Any], reason: str, app: Celery, store: Store) -> None:
    send(app, **message)
    assert the_dead_letter(store).reason == reason
    assert tasks_of(app)["add"].delay(1, 2).get(timeout=20) == 3


def test_a_dead_letter_can_be_replayed(app: Celery, store: Store, environ: dict[str, str]) -> None:
    send(app, [[], {}, {}], task="no.such.task", id="replayed")
    letter = the_dead_letter(store)
    store.replay([letter.id])
    again = until(lambda: [x for x in store.dead_letters() if x.id != letter.id], 20, "it dies again")
    assert again[0].body == letter.body


def test_delayed_tasks_wait_in_the_store_and_in_no_worker(
    app: Celery, store: Store, environ: dict[str, str]
) -> None:
    tasks = tasks_of(app)
    delayed = [tasks["noop"].apply_async(countdown=1.5) for _ in range(50)]
    assert store.sizes("celery").delayed == 50
    assert not any((app.control.inspect().scheduled() or {}).values())
    ledger = Path(environ["ACCEPTANCE_LEDGER"])
    assert tasks["add"].delay(1, 2).get(timeout=20) == 3
    until(lambda: all(runs(ledger)[result.id] == 1 for result in delayed), 20, "the delayed ones run")


def test_revoked_tasks_do_not_run(app: Celery, store: Store, environ: dict[str, str]) -> None:
    task = tasks_of(app)["noop"].apply_async(countdown=1)
    other = tasks_of(app)["noop"].apply_async(countdown=1.1)
    app.control.revoke(task.id, reply=True, timeout=2)
    ledger = Path(environ["ACCEPTANCE_LEDGER"])
    until(lambda: runs(ledger)[other.id] == 1, 20, "the other one runs")
    until(lambda: store.sizes("celery").leased == 0, 20, "both are acknowledged")
    assert runs(ledger)[task.id] == 0


def test_events_reach_a_monitor(app: Celery) -> None:
    seen: dict[str, set[str]] = {}
    app.control.enable_events(reply=True, timeout=2)
    with app.connection_for_read() as connection:

        def note(event: dict[str, Any]) -> None:
            seen.setdefault(event["uuid"], set()).add(event["type"])

        receiver = app.events.Receiver(connection, handlers={"task-received": note, "task-succeeded": note})
        with receiver.consumer_context() as (receiving, _, _):
            add = tasks_of(app)["add"]

            def complete() -> bool:
                # A worker that has just looked for readers of its events looks again within a second.
                sent = add.delay(2, 2).id
                with contextlib.suppress(TimeoutError):
                    while seen.get(sent) != {"task-received", "task-succeeded"}:
                        receiving.drain_events(timeout=1)
                return len(seen.get(sent, ())) == 2

            assert until(complete, 20, "both events of a task arrive")


@pytest.mark.parametrize(
    "headers",
    [{"task": ["x"]}, {"id": ["x"]}, {"stamped_headers": 5}, {"eta": [1]}, {"expires": {}}, {"timelimit": 7}],
    ids=str,
)
def test_headers_of_wrong_types_kill_no_worker(headers: dict[str, Any], app: Celery, store: Store) -> None:
    send(app, [[], {}, {}], **headers)
    letter = the_dead_letter(store)
    assert letter.reason == UNREADABLE
    assert f"its header {next(iter(headers))} is" in letter.detail
    assert tasks_of(app)["add"].delay(1, 2).get(timeout=20) == 3


def test_every_chord_starts_its_body_once(app: Celery, environ: dict[str, str], tmp_path: Path) -> None:
    tasks = tasks_of(app)
    with worker(environ, app, tmp_path / "second.log", "--concurrency=2"):
        bodies = [chord([tasks["add"].s(1, 1)] * 2, tasks["total"].s()).apply_async() for _ in range(60)]
        assert [body.get(timeout=40) for body in bodies] == [4] * 60
    ledger = Path(environ["ACCEPTANCE_LEDGER"])
    assert {runs(ledger)[body.id] for body in bodies} == {1}
