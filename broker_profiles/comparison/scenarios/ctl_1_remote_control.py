"""CTL-1: a client elsewhere asks and commands workers by remote control."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from broker_profiles.comparison.account import starts_in_order
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "CTL-1"

#: The most that an answer may take, in seconds, also after an outage or a worker's freeze.
BOUND = 15.0

#: How long a busy task takes, in seconds: longer than two answers.
_LONG = 60.0

#: Within this many seconds what must not start would have started.
_WATCHED = 3.0


def ask(app: Celery, command: str, workers: list[str], arguments: dict[str, Any], within: float) -> Any:
    """Return worker -> answer to a command of remote control; ends as soon as all have answered."""
    replies = app.control.broadcast(
        command, arguments=arguments, destination=workers, reply=True, timeout=within, limit=len(workers)
    )
    return {name: answer for reply in replies or [] for name, answer in reply.items()}


@case("every question of inspect is answered", quick=True)
def inspected(stage: Stage) -> None:
    """Ask a busy worker what it is and does."""
    worker = stage.workers.start(concurrency=1)
    (running,) = stage.client.sent("note", 1, _LONG)
    stage.wait_for([running], 20, kind="start")
    waiting = stage.client.sent("note", 2)
    # First what is true only as long as it is busy: each answer may take its time.
    active = _ids(answer_of(stage, worker, "active"))
    stage.require(active == {running}, "`active` does not name what runs, and nothing else")
    stage.require(running not in _ids(answer_of(stage, worker, "reserved")), "`reserved` names what runs")
    stage.require("ok" in answer_of(stage, worker, "ping"), "`ping` is answered wrongly")
    stage.require("comparison.note" in answer_of(stage, worker, "registered"), "`registered` lacks a task")
    stage.require(answer_of(stage, worker, "stats")["pool"]["max-concurrency"] == 1, "`stats` is wrong")
    queues = [queue["name"] for queue in answer_of(stage, worker, "active_queues")]
    stage.require(queues == [stage.prefix], f"`active_queues` names {queues}")
    stage.require(answer_of(stage, worker, "scheduled") == [], "`scheduled` names what nobody sent")
    _command(stage, worker, "revoke", task_id=running, terminate=True)
    stage.ledger.withdrawn([running], "revoked")
    stage.wait_for(waiting, BOUND)
    stage.require_clean()


@case("limits, pool and queues of a worker are changed, and it is shut down")
def commanded(stage: Stage) -> None:
    """Rate limit, pool_grow, pool_shrink, cancel_consumer, add_consumer and shutdown; each does it."""
    worker = stage.workers.start(concurrency=1)
    _command(stage, worker, "rate_limit", task_name="comparison.note", rate_limit="1/s")
    limited = stage.client.sent("note", 4)
    stage.wait_for(limited, 20)
    stage.require(_seconds_between_starts(stage, limited) > 2.5, "the rate limit of 1/s was not kept")
    _command(stage, worker, "rate_limit", task_name="comparison.note", rate_limit="0")

    _command(stage, worker, "pool_grow", n=2)
    _wait_for_processes(stage, worker, 3)
    _require_at_once(stage, 3, tasks=3, seconds=3.0)
    _command(stage, worker, "pool_shrink", n=2)
    _wait_for_processes(stage, worker, 1)
    _require_at_once(stage, 1, tasks=2, seconds=1.0)

    _command(stage, worker, "cancel_consumer", queue=stage.prefix)
    waiting = stage.client.sent("note", 2)
    stage.pause(_WATCHED)
    stage.require(not stage.ledger.ids("start") & set(waiting), "a cancelled queue is still consumed")
    _command(stage, worker, "add_consumer", queue=stage.prefix)
    stage.wait_for(waiting, BOUND)

    (last,) = stage.client.sent("note", 1, 2.0)
    stage.wait_for([last], BOUND, kind="start")
    stage.client.call(ask, "shutdown", [worker.name], {}, 0.1)
    stage.require(worker.wait(30) == 0, "the worker did not shut down, or not well")
    if last not in stage.ledger.ids("finish"):
        stage.workers.start()  # what did not end went back
    stage.wait_for([last], 30, what="were lost with the worker that was shut down")
    stage.require_clean()


@case("an autoscaled pool is given other limits")
def autoscaled(stage: Stage) -> None:
    """Allow one that has one process to have three: it has them when there is work for them, not before."""
    worker = stage.workers.start("--autoscale=1,1")
    _command(stage, worker, "autoscale", max=3, min=1)
    _wait_for_processes(stage, worker, 1)
    _require_at_once(stage, 3, tasks=6, seconds=2.0)
    stage.require_clean()


@case("a task is revoked before it starts, and one while it runs", quick=True)
def revoked(stage: Stage) -> None:
    """Revoke a waiting and a delayed task, terminate a running one: none finishes, and work goes on."""
    worker = stage.workers.start(concurrency=1)
    (running,) = stage.client.sent("note", 1, 60.0)
    stage.wait_for([running], 20, kind="start")
    (waiting,) = stage.client.sent("note")
    (delayed,) = stage.client.sent("note", countdown=3)
    _command(stage, worker, "revoke", task_id=[waiting, delayed])
    _command(stage, worker, "revoke", task_id=running, terminate=True)
    stage.ledger.withdrawn([waiting, delayed, running], "revoked")
    others = [*stage.client.sent("note", 3), *stage.client.sent("note", countdown=4)]
    stage.wait_for(others, BOUND)
    stage.pause(_WATCHED)
    unwanted = stage.ledger.ids("start") & {waiting, delayed}
    stage.require(not unwanted, f"a revoked task ran: {', '.join(unwanted)}")
    stage.require(running not in stage.ledger.ids("finish"), "a terminated task finished")
    starts = [event for event in stage.ledger.of("start") if event.id == running]
    stage.require(len(starts) == 1, "a terminated task ran again")
    stage.require(not answer_of(stage, worker, "active"), "a terminated task is still said to run")


def answer_of(stage: Stage, worker: Worker, command: str, **arguments: Any) -> Any:
    """Return a worker's answer. Raises `PromiseBroken` where none comes in time."""
    began = time.monotonic()
    answers = stage.client.call(ask, command, [worker.name], arguments, BOUND, within=2 * BOUND)
    stage.require(worker.name in answers, f"{worker.name} did not answer `{command}` within {BOUND:g} s")
    stage.facts[f"seconds to answer {command}"] = round(time.monotonic() - began, 3)
    return answers[worker.name]


def _command(stage: Stage, worker: Worker, command: str, **arguments: Any) -> None:
    answer = answer_of(stage, worker, command, **arguments)
    stage.require("ok" in answer, f"{worker.name} answers `{command}` with {answer}")


def _wait_for_processes(stage: Stage, worker: Worker, count: int) -> None:
    """Raise `PromiseBroken` unless its pool comes to have so many processes."""

    def has_them() -> bool:
        return len(answer_of(stage, worker, "stats")["pool"]["processes"]) == count

    stage.wait_for_value(has_them, BOUND, f"the pool does not come to have {count} processes")


def _require_at_once(stage: Stage, count: int, *, tasks: int, seconds: float) -> None:
    """Send tasks, and raise `PromiseBroken` unless so many, and never more, run at the same time."""
    sent = stage.client.sent("note", tasks, seconds)
    stage.wait_for(sent, 30)
    running = most = 0
    for event in stage.ledger.of("start", "finish"):
        if event.id in sent:
            running += 1 if event.kind == "start" else -1
            most = max(most, running)
    stage.require(most == count, f"{most} of {tasks} tasks ran at once, and not {count}")


def _seconds_between_starts(stage: Stage, ids: list[str]) -> float:
    times = {event.id: event.time for event in stage.ledger.of("start") if event.id in ids}
    order = starts_in_order(event for event in stage.ledger.of("start") if event.id in ids)
    return times[order[-1]] - times[order[0]]


def _ids(tasks: list[dict[str, Any]]) -> set[str]:
    return {task["id"] for task in tasks}
