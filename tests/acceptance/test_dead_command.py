"""`broker-profiles dead` on real servers: what workers set aside is read, replayed and discarded."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.acceptance.running import ROOT, client, runs, worker
from tests.acceptance.tasks import tasks_of
from tests.conftest import ServerOf
from tests.unit.test_cli import run_apart
from tests.waiting import until

#: Of each profile: the system that it needs, and the variable that says where that is.
PROFILES = {
    "embedded": ("", ""),
    "redis+none": ("redis", "REDIS_URL"),
    "postgresql+none": ("postgresql", "DATABASE_URL"),
    "rabbitmq+none": ("rabbitmq", "RABBITMQ_URL"),
}


@pytest.fixture(params=PROFILES)
def environ(request: pytest.FixtureRequest, server: ServerOf, tmp_path: Path) -> dict[str, str]:
    system, variable = PROFILES[request.param]
    return {
        "BROKER_PROFILE": request.param,
        "BROKER_PROFILE_EMBEDDED_PATH": str(tmp_path / "embedded.sqlite3"),
        "BROKER_PROFILE_DELIVERY_LIMIT": "2",
        "ACCEPTANCE_QUEUE": f"dead-{uuid.uuid4().hex[:8]}",
        "ACCEPTANCE_LEDGER": str(tmp_path / "ledger"),
        **({variable: server(system).url} if system else {}),
    }


@pytest.fixture
def app(environ: dict[str, str], tmp_path: Path) -> Iterator[Celery]:
    with client(environ) as app, worker(environ, app, tmp_path / "worker.log", "--concurrency=1"):
        yield app


def dead(environ: dict[str, str], *arguments: str) -> Any:
    """Run a command as `celery -A`, whose application says which queue there is."""
    command = ["-A", "tests.acceptance.app", "profile", "dead", *arguments, "--json"]
    ended = run_apart("celery", *command, cwd=ROOT, **{**os.environ, **environ})
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_what_workers_set_aside(app: Celery, environ: dict[str, str]) -> None:
    tasks, queue = tasks_of(app), environ["ACCEPTANCE_QUEUE"]
    refused = tasks["reject"].delay("no such customer").id
    returned = tasks["reject"].delay("not now", requeue=True).id
    killed = tasks["die"].delay().id
    unknown = app.send_task("no.such.task", ("text",), {"password": "hunter2"}).id
    wanted = {
        refused: ("rejected", "acceptance.reject", 1),
        returned: ("deliveries exhausted", "acceptance.reject", 2),
        killed: ("deliveries exhausted", "acceptance.die", 2),
        unknown: ("unknown task", "no.such.task", 1),
    }

    def listed() -> dict[str, dict[str, Any]]:
        found = dead(environ, "list", "--queue", queue)["dead_letters"]
        return {letter["task_id"]: letter for letter in found}

    letters = until(lambda: found if len(found := listed()) == len(wanted) else None, 60, "all are set aside")
    assert {
        id_: (each["reason"], each["task"], each["deliveries"]) for id_, each in letters.items()
    } == wanted

    ids = [letters[id_]["id"] for id_ in wanted]
    shown = {each["task_id"]: each for each in dead(environ, "show", *ids)["dead_letters"]}
    assert "ValueError: no such customer" in shown[refused]["traceback"]
    assert "ValueError: not now" in shown[returned]["traceback"]
    assert "signal 9" in shown[killed]["detail"]
    assert (shown[unknown]["args"], shown[unknown]["kwargs"]) == ("('text',)", "{'password': '***'}")

    ran = runs(Path(environ["ACCEPTANCE_LEDGER"]))[refused]
    assert dead(environ, "replay", letters[refused]["id"])["replayed"] == 1
    until(lambda: runs(Path(environ["ACCEPTANCE_LEDGER"]))[refused] == ran + 1, 30, "it runs again")
    again = until(lambda: listed().get(refused), 30, "it is set aside again")
    assert again["id"] != letters[refused]["id"]

    assert dead(environ, "discard", "--all", "--queue", queue, "--yes")["discarded"] == len(wanted)
    assert listed() == {}
