"""The same three hundred tasks on every profile: right results by id, each run as often as it should."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from celery import chord

from broker_profiles import load
from tests.acceptance.load import Sent, send
from tests.acceptance.running import client, read_elsewhere, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.conftest import ServerOf
from tests.embedded_worker import worker_thread

#: System -> the variables that name its server, for messages and for results.
_VARIABLES = {
    "rabbitmq": "RABBITMQ_URL",
    "redis": "REDIS_URL",
    "postgresql": "DATABASE_URL",
    "mysql": "DATABASE_URL",
    "mongodb": "MONGODB_URL",
}

CASES = [
    ("embedded", "prefork"),
    ("embedded", "threads"),
    ("embedded", "solo"),
    ("rabbitmq+redis", "prefork"),
    ("rabbitmq+postgresql", "prefork"),
    ("rabbitmq+rpc", "prefork"),
    ("rabbitmq:fast+redis", "prefork"),
    ("librabbitmq+redis", "prefork"),
    ("librabbitmq:fast+rpc", "prefork"),
    ("redis", "prefork"),
    ("redis:fast", "prefork"),
    ("redis+mysql", "prefork"),
    ("postgresql", "prefork"),
    ("mysql", "prefork"),
    ("mongodb", "prefork"),
    ("redis+mongodb", "prefork"),
]

#: What the others show already, in another combination.
SELDOM = {
    ("embedded", "threads"),
    ("embedded", "solo"),
    ("rabbitmq+postgresql", "prefork"),
    ("librabbitmq:fast+rpc", "prefork"),
    ("redis+mysql", "prefork"),
    ("redis+mongodb", "prefork"),
}


def environment(profile: str, server: ServerOf, tmp_path: Path) -> dict[str, str]:
    """Return the variables that put a process on a profile, its servers running."""
    chosen = load(profile)
    environ = {
        "BROKER_PROFILE": profile,
        "BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "embedded.sqlite3"),
        "ACCEPTANCE_LEDGER": str(tmp_path / "ledger"),
        "ACCEPTANCE_QUEUE": f"acceptance-{uuid.uuid4().hex[:8]}",
    }
    for side in (chosen.results, chosen.broker):
        if side.system is not None:
            environ[_VARIABLES[side.system]] = server(side.system).url
    return environ


def check(sent: Sent, found: dict[str, list[object]], ledger: Path) -> None:
    missing = set(sent.expected) - set(found)
    assert not missing, f"{len(missing)} of {len(sent.expected)} without a result"
    wrong = {
        id_: (found[id_], expected)
        for id_, expected in sent.expected.items()
        if tuple(found[id_]) != expected
    }
    assert not wrong
    ran = runs(ledger)
    assert set(ran) == set(sent.runs), "unexpected or missing ids in the ledger"
    repeated = {id_: (count, sent.runs[id_]) for id_, count in ran.items() if count != sent.runs[id_]}
    assert not repeated, "ran a wrong number of times"


@pytest.mark.parametrize(
    ("profile", "pool"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case in SELDOM else []) for case in CASES],
)
def test_three_hundred_tasks(profile: str, pool: str, server: ServerOf, tmp_path: Path) -> None:
    environ = environment(profile, server, tmp_path)
    guarantees = load(profile).guarantees
    options = (f"--pool={pool}", "--concurrency=2")
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", *options):
        sent = send(app, chords=guarantees.chords)
        assert len(sent.expected) == (300 if guarantees.chords else 270)
        if guarantees.holds("RES-1"):
            found = read_elsewhere(environ, list(sent.expected), 90)
        else:
            found = read_here(sent)
        if not guarantees.chords:
            tasks = tasks_of(app)
            with pytest.raises(NotImplementedError, match="chord"):
                chord([tasks["add"].s(1, 1)], tasks["total"].s()).apply_async()
        check(sent, found, tmp_path / "ledger")


@pytest.mark.parametrize("profile", ["embedded", "rabbitmq+redis", "redis", "postgresql", "mysql"])
def test_what_comes_later_stays_in_its_queue(profile: str, server: ServerOf, tmp_path: Path) -> None:
    environ = environment(profile, server, tmp_path)
    named = f"{environ['ACCEPTANCE_QUEUE']}-named"
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", f"--queues={named}"):
        tasks = tasks_of(app)
        # The default queue has no worker: whatever lands there is never seen again.
        retried = tasks["retry_twice"].apply_async((7, 1.2), queue=named)
        delayed = tasks["add"].apply_async((1, 2), queue=named, countdown=1.5)
        parts = [tasks["add"].s(1, part).set(queue=named) for part in range(3)]
        body = chord(parts, tasks["total"].s().set(queue=named)).apply_async()
        assert retried.get(timeout=30) == 7
        assert delayed.get(timeout=30) == 3
        assert body.get(timeout=30) == 6


def read_here(sent: Sent) -> dict[str, list[object]]:
    """Return id -> [state, result] as the process reads them that sent the tasks."""
    found: dict[str, list[object]] = {}
    for result in sent.results:
        value = result.get(timeout=60, propagate=False)
        found[result.id] = [result.state, str(value) if isinstance(value, Exception) else value]
    return found


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_three_hundred_tasks_in_memory(pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEPTANCE_LEDGER", str(tmp_path / "ledger"))
    with (
        client({"BROKER_PROFILE": "memory"}) as app,
        worker_thread(app, pool=pool, concurrency=2),
    ):
        sent = send(app, chords=True)
        found = read_here(sent)
    assert len(found) == 300
    check(sent, found, tmp_path / "ledger")
