"""Nobody waits for ever for a result that does not come: neither `get()` nor the body of a chord."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chord
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult

from broker_profiles.results.waiting import NoResult
from tests.acceptance.running import client, close_backend, worker
from tests.acceptance.tasks import tasks_of
from tests.acceptance.test_profiles import environment
from tests.conftest import ServerOf

# Celery's Redis backend says `setex`.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

PROFILES = ["embedded", "redis", "postgresql", "mysql", "mongodb", "rabbitmq+rpc"]

#: Stores that do not count the parts of a chord.
LOOKING = ["postgresql", "mysql", "mongodb"]

#: The longest default wait that is set here, in seconds.
WAIT = 1


@pytest.fixture(params=PROFILES)
def app(request: pytest.FixtureRequest, server: ServerOf, tmp_path: Path) -> Iterator[Celery]:
    environ = environment(request.param, server, tmp_path)
    made = client({**environ, "BROKER_PROFILE_RESULT_WAIT_SECONDS": str(WAIT)})
    with made as app, close_backend(app):
        yield app


def test_a_result_that_does_not_come_is_not_waited_for_without_end(app: Celery) -> None:
    never = app.AsyncResult(str(uuid.uuid4()))
    with pytest.raises(NoResult, match=rf"{never.id} within {WAIT} s.*BROKER_PROFILE_RESULT_WAIT_SECONDS"):
        never.get()
    with pytest.raises(CeleryTimeoutError) as caught:
        never.get(timeout=0.1)
    assert not isinstance(caught.value, NoResult)


def test_a_timeout_that_the_task_itself_has_raised_is_given_as_it_is(app: Celery) -> None:
    if not hasattr(app.backend, "key_of"):
        pytest.skip("a result of rpc is a message to who sent the task")
    id_ = str(uuid.uuid4())
    app.backend.store_result(id_, CeleryTimeoutError("of the task"), "FAILURE")
    with pytest.raises(CeleryTimeoutError, match="of the task") as caught:
        app.AsyncResult(id_).get()
    assert not isinstance(caught.value, NoResult)


def test_nor_is_a_group(app: Celery) -> None:
    parts = [app.AsyncResult(str(uuid.uuid4())) for _ in range(2)]
    group = GroupResult(str(uuid.uuid4()), parts, app=app)
    with pytest.raises(NoResult, match="BROKER_PROFILE_RESULT_WAIT_SECONDS"):
        group.get()


@pytest.mark.parametrize("profile", LOOKING)
def test_a_chord_whose_part_does_not_come_fails_and_says_so(
    profile: str, server: ServerOf, tmp_path: Path
) -> None:
    environ = {**environment(profile, server, tmp_path), "BROKER_PROFILE_RESULT_WAIT_SECONDS": "3"}
    with (
        client(environ) as app,
        close_backend(app),
        worker(environ, app, tmp_path / "worker.log", "--concurrency=1"),
    ):
        tasks = tasks_of(app)
        nobody = f"{environ['ACCEPTANCE_QUEUE']}-nobody"
        parts = [tasks["add"].s(1, 2), tasks["add"].s(3, 4).set(queue=nobody)]
        body = chord(parts, tasks["total"].s()).apply_async()
        lost = body.parent.results[1].id
        with pytest.raises(ChordError, match=rf"cannot finish: 1 of 2 parts have no result \({lost}\)"):
            body.get(timeout=60)
