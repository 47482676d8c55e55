"""DEL-6: a worker that is told to end under load loses no task and runs none twice."""

from __future__ import annotations

import time
from functools import partial

from celery import Celery
from celery.backends.base import DisabledBackend

from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "DEL-6"

#: Seconds that running tasks take, and that a worker may take to end after them.
_RUNNING, _ENDS = 2.5, 20.0

#: How often it is tried to end a worker while tasks are on the way: on a busy machine they may have finished.
_TRIES = 3

#: Seconds that a cold shutdown leaves running tasks here, and tasks that take longer than that.
_SOFT, _TOO_LONG = 2.0, 6.0


@case("SIGTERM with tasks running and more waiting, and another worker takes over", quick=True)
def terminated(stage: Stage) -> None:
    """What runs is finished by the worker that ends, what waits by the other; each once."""
    leaving = stage.workers.start(concurrency=2)
    running = stage.client.sent("note", 2, _RUNNING)
    waiting = stage.client.sent("note", 10, 0.5)
    stage.wait_for(running, 20, kind="start")
    _terminate(stage, leaving)
    stage.workers.start(concurrency=2)
    _ended(stage, leaving)
    stage.wait_for([*running, *waiting], 40)
    _each_ran_once(stage)


@case("a rolling restart of two workers while tasks keep coming")
def rolling_restart(stage: Stage) -> None:
    """Each worker in turn is told to end and replaced, as a deploy does; nobody waits for the queue."""
    workers = [stage.workers.start(), stage.workers.start()]
    with stage.client.sending("note", 0.15, every=0.06) as sent:
        for worker in workers:
            _terminate(stage, worker)
            _ended(stage, worker)
            stage.workers.revive()
    stage.require(all(answer.error is None for answer in sent), "a task could not be sent")
    stage.wait_for([answer.id for answer in sent], 40)
    _each_ran_once(stage)


@case("a cold shutdown (REMAP_SIGTERM=SIGQUIT) with tasks that take too long to wait for")
def cold_shutdown(stage: Stage) -> None:
    """They are stopped, go back, and run elsewhere from their start; what waited is not touched."""
    stage.configure(BROKER_PROFILE_SHUTDOWN_SECONDS=f"{_SOFT:g}")
    leaving = stage.workers.start(concurrency=2, environ={"REMAP_SIGTERM": "SIGQUIT"})
    running = stage.client.sent("note", 2, _TOO_LONG)
    waiting = stage.client.sent("note", 4, 0.2)
    stage.wait_for(running, 20, kind="start")
    _terminate(stage, leaving)
    _ended(stage, leaving)
    stage.workers.start(concurrency=2)
    stage.wait_for([*running, *waiting], 30)
    stage.require_clean()
    touched = stage.account().recovered - set(running)
    stage.require(not touched, f"{len(touched)} tasks that did not run yet were begun twice")


@case("SIGTERM again and again while short tasks, their results and acknowledgements are on the way")
def acknowledgements_on_the_way(stage: Stage) -> None:
    """Two workers end in the middle of the flow; the third does the rest. Every result is there."""
    ids = [*_ends_in_the_flow(stage), *_ends_in_the_flow(stage)]
    stage.workers.start(concurrency=2)
    stage.wait_for(ids, 40)
    _each_ran_once(stage)
    missing = stage.client.call(without_result, ids, 3, 10.0)
    stage.require(not missing, f"{len(missing)} of {len(ids)} tasks ran and have no result")


def without_result(app: Celery, ids: list[str], value: int, within: float) -> list[str]:
    """In the client: return the ids whose result is not this value, waited for so many seconds in all."""
    if isinstance(app.backend, DisabledBackend):
        return []
    deadline = time.monotonic() + within
    missing = []
    for id_ in ids:
        result = app.AsyncResult(id_)
        while not result.ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        if result.result != value:
            missing.append(id_)
    return missing


def _ends_in_the_flow(stage: Stage) -> list[str]:
    """End a worker in the middle of many short tasks, and return their ids: some had not finished then."""
    ids: list[str] = []
    for _ in range(_TRIES):
        done = len(stage.ledger.ids("finish"))
        ids += stage.client.sent("add", 80, 1, 2, 0.01)
        worker = stage.workers.start(concurrency=2)
        stage.wait(partial(_so_many_finished, stage, done + 40), 30, "tasks run")
        _terminate(stage, worker)
        _ended(stage, worker)
        (*_, told) = stage.ledger.of("fault")
        finished = {event.id for event in stage.ledger.of("finish") if event.time < told.time}
        if not finished >= set(ids):
            return ids
    raise TooLate("every task had finished before the worker was told to end")


def _so_many_finished(stage: Stage, number: int) -> bool:
    return len(stage.ledger.ids("finish")) >= number


def _terminate(stage: Stage, worker: Worker) -> None:
    stage.fault("worker SIGTERM")
    worker.terminate()


def _ended(stage: Stage, worker: Worker) -> None:
    stage.require(worker.wait(_ENDS) is not None, f"the worker had not ended {_ENDS:g} s after SIGTERM")


def _each_ran_once(stage: Stage) -> None:
    """Beyond the account: nothing that ran to its end was begun twice either."""
    stage.require_clean()
    begun_twice = stage.account().recovered
    stage.require(not begun_twice, f"{len(begun_twice)} tasks were started twice")
