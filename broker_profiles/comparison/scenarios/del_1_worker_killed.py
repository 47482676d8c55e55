"""DEL-1: a task whose worker is killed runs again within 30 s."""

from __future__ import annotations

import os
import signal

from broker_profiles.comparison.account import lateness
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "DEL-1"

#: The bound of the promise, in seconds from the kill to the start of the second run.
BOUND = 30.0

#: How long the interrupted task takes, in seconds: longer than it takes to find and kill its process.
_LONG = 6.0


@case("the whole worker is killed in the middle of a task", quick=True)
def worker_killed(stage: Stage) -> None:
    """Kill the main process and its pool while a task runs and others wait; another worker is there."""
    running, waiting, doomed, other = _one_of_two_runs_it(stage)
    stage.fault("worker SIGKILL")
    doomed.kill()
    _runs_again(stage, running, waiting)
    stage.require(other.alive, "the other worker ended too")


@case("a process of the pool is killed in the middle of a task", quick=True)
def child_killed(stage: Stage) -> None:
    """Kill the process that runs the task; the worker's main process lives on."""
    _kill_child(stage)


@case("a process of the pool is killed in the middle of a task that is acknowledged late")
def child_killed_acknowledged_late(stage: Stage) -> None:
    """The same where the broker still has the message: Celery's own way to lose no task with its process."""
    stage.set(task_acks_late=True)
    _kill_child(stage)


@case("the main process alone is killed, and its pool is left without it")
def main_killed(stage: Stage) -> None:
    """Kill the main process: its children must not keep what they hold from running elsewhere, to its end."""
    running, waiting, doomed, _ = _one_of_two_runs_it(stage)
    stage.fault("main process SIGKILL")
    doomed.kill_main()
    stage.wait_for(waiting, BOUND + _LONG)
    _again_in_time(stage, running)
    *_, second = [event for event in stage.ledger.of("start") if event.id == running]

    def finished() -> bool:
        ends = stage.ledger.of("finish")
        return any(end.id == running and end.process == second.process for end in ends)

    stage.wait_for_value(finished, BOUND, "the second run did not come to its end")
    # An orphan may come to its own end beside it, for at least once is what is promised.
    lost = stage.account().lost
    stage.require(not lost, f"{len(lost)} tasks were lost")


def _kill_child(stage: Stage) -> None:
    worker = stage.workers.start(concurrency=2)
    (running,) = stage.client.sent("note", 1, _LONG)
    waiting = stage.client.sent("note", 5)
    stage.wait_for([running], 20, kind="start")
    (start,) = [event for event in stage.ledger.of("start") if event.id == running]
    stage.fault("child SIGKILL")
    os.kill(start.process, signal.SIGKILL)
    _runs_again(stage, running, waiting)
    stage.require(worker.alive, "the worker ended with its child")


def _one_of_two_runs_it(stage: Stage) -> tuple[str, list[str], Worker, Worker]:
    """Return a long task that runs, short ones behind it, the worker that runs it, and another one.

    Both are there before the task: a worker may take longer to start than the task takes.
    """
    workers = [stage.workers.start(concurrency=1) for _ in range(2)]
    (running,) = stage.client.sent("note", 1, _LONG)
    waiting = stage.client.sent("note", 5)
    stage.wait_for([running], 20, kind="start")
    (start,) = [event for event in stage.ledger.of("start") if event.id == running]
    workers.sort(key=lambda worker: start.process not in worker.children())
    doomed, other = workers
    return running, waiting, doomed, other


def _runs_again(stage: Stage, running: str, waiting: list[str]) -> None:
    _again_in_time(stage, running)
    stage.wait_for([running, *waiting], BOUND)
    stage.require_clean()


def _again_in_time(stage: Stage, running: str) -> None:
    (killed,) = stage.ledger.of("fault")

    def again() -> float | None:
        after = [event for event in stage.ledger.of("start") if event.time > killed.time]
        return lateness(after, {running: killed.time}).get(running)

    stage.wait_for_value(again, BOUND + _LONG, "the interrupted task did not run again")
    stage.in_time("seconds from the kill to the second run", again() or 0.0, BOUND)
