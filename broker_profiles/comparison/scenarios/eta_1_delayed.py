"""ETA-1: countdown and eta wait in the broker, survive restarts, and run once, within 1 s of their time."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from broker_profiles.comparison.account import lateness
from broker_profiles.comparison.client import ClientError
from broker_profiles.comparison.clock import other_clock
from broker_profiles.comparison.scenario import PromiseBroken, case
from broker_profiles.comparison.scenarios.ctl_1_remote_control import BOUND as _ANSWER
from broker_profiles.comparison.scenarios.ctl_1_remote_control import ask
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "ETA-1"

#: The bound of the promise, in seconds from the time a task is due to its start.
BOUND = 1.0

#: Clocks are read a moment apart and stores keep milliseconds: this much too early is no break, in seconds.
_ROUNDING = 0.02

#: How long one is waited for that nobody has promised, in seconds: shorter than the delays of a case.
_SHORT_ANSWER = 3.0

#: How long what is overdue is waited for before it counts as lost, in seconds.
_OVERDUE = 15.0

_HOUR = 3600

#: Between tasks for an idle worker, in seconds.
_PAUSES = (0.9, 0.35, 0.65, 0.2, 0.8, 0.5, 0.75)

#: The zones that etas are given in.
_ZONES = {"UTC": UTC, "UTC+5:30": timezone(timedelta(hours=5, minutes=30))}

Due = dict[str, float]


def send_delayed(app: Any, how: str, delays: list[float]) -> list[list[Any]]:
    """Send a task for each delay, in seconds, by `countdown` or an eta in a zone; return `[id, due]` of each.

    Raises `RuntimeError` where the broker refused one.
    """
    from broker_profiles.comparison.clientside import send_one  # only a client has an application

    made: list[list[Any]] = []
    for seconds in delays:
        due = time.monotonic() + seconds
        if how == "countdown":
            options: dict[str, Any] = {"countdown": seconds}
        else:
            options = {"eta": datetime.now(_ZONES[how]) + timedelta(seconds=seconds)}
        id_, _, error = send_one(app, "note", [], {}, options)
        if error is not None:
            raise RuntimeError(error)
        made.append([id_, due])
    return made


@case("countdowns and etas of 0.3 to 5 s, and a retry", quick=True)
def on_time(stage: Stage) -> None:
    """Send delays of every form to a running worker."""
    worker = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    (retried,) = stage.client.sent("again", 1, 2.5)
    due = _delayed(stage, "countdown", 0.3, 1, 2.5, 5)
    for zone in _ZONES:
        due |= _delayed(stage, zone, 0.5, 3)
    stage.wait_for([min(due, key=due.__getitem__)], 20)
    _not_held(stage, worker, due)
    stage.wait_for([retried], 20)
    first, *others = [event.time for event in stage.ledger.of("start") if event.id == retried]
    stage.require(len(others) == 1, f"the retried task ran {len(others)} more times and not once")
    late = others[0] - first - 2.5
    stage.require(late >= -_ROUNDING, f"the retry ran {-late:.3f} s early")
    stage.in_time("seconds from a retry's time to its start", late, BOUND)
    _each_once_in_time(stage, due)


@case("no delay at all, and a worker that has had nothing to do")
def idle_worker(stage: Stage) -> None:
    """Send single tasks, at moments that no polling can be in step with, and take the median."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    due: Due = {}
    for pause in _PAUSES:
        stage.pause(pause)
        due |= _delayed(stage, "countdown", 0)
    stage.wait_for(due, _OVERDUE)
    late = statistics.median(lateness(stage.ledger.events(), due).values())
    stage.in_time("median seconds from a task's sending to its start", late, BOUND)


@case("the worker is killed and the broker restarted while they wait")
def restarts(stage: Stage) -> None:
    """Kill the worker, then the broker; another worker takes over. One task comes due while both are away."""
    doomed = stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    due = _delayed(stage, "countdown", 3, 7, 12, 17, 17, 22) | _delayed(stage, "UTC", 19)
    _not_held(stage, doomed, due)
    stage.fault("worker SIGKILL")
    doomed.kill()
    stage.server.kill()
    stage.server.start()
    stage.workers.revive()
    _each_once_in_time(stage, due)


@case("they are sent before any worker has ever run")
def no_worker_yet(stage: Stage) -> None:
    """Send to a queue that nobody has consumed from; the worker comes after some are due."""
    due = _delayed(stage, "countdown", 1, 8, 10)
    stage.workers.start()
    _each_once_in_time(stage, due)


@case("a countdown is longer than the broker's own timeout")
def longer_than_timeout(stage: Stage) -> None:
    """Let tasks wait four times as long as the broker waits for an acknowledgement."""
    stage.shorten_timeouts(2)
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    due = _delayed(stage, "countdown", 8, 8, 8)
    _each_once_in_time(stage, due)


@case("a worker's clock is an hour ahead")
def clock_ahead(stage: Stage) -> None:
    """Nothing runs early because one machine's clock is wrong."""
    _with_other_clock(stage, _HOUR)


@case("a worker's clock is an hour behind")
def clock_behind(stage: Stage) -> None:
    """Nothing runs late because one machine's clock is wrong."""
    _with_other_clock(stage, -_HOUR)


def _with_other_clock(stage: Stage, seconds: int) -> None:
    before, environ = other_clock(stage.profile, seconds, stage.folder)
    stage.workers.start(before=before, environ=environ)
    stage.wait_for(stage.client.sent("note", 2), 20)
    # RabbitMQ counts whole seconds, and the rest is left to the worker's clock.
    _each_once_in_time(stage, _delayed(stage, "countdown", 2.5, 4), early=BOUND)


def _delayed(stage: Stage, how: str, *delays: float) -> Due:
    try:
        return dict(stage.client.call(send_delayed, how, delays))
    except ClientError as error:
        raise PromiseBroken(f"a delayed task was refused: {error}") from None


def _not_held(stage: Stage, worker: Worker, due: Due) -> None:
    """Ask a worker what it holds, and require that what is not yet about to be due waits elsewhere.

    Whether it answers is another promise.
    """
    within = _ANSWER if stage.profile.guarantees.holds("CTL-1") else _SHORT_ANSWER
    held: set[str] = set()
    for command in ("scheduled", "reserved"):
        answers = stage.client.call(ask, command, [worker.name], {}, within, within=2 * _ANSWER)
        if worker.name not in answers:
            stage.facts["what the worker holds"] = "not known: it does not answer"
            return
        held |= {task.get("request", task)["id"] for task in answers[worker.name]}
    # RabbitMQ counts whole seconds, and a worker may wait for the rest.
    early = held & {id_ for id_, when in due.items() if when > time.monotonic() + BOUND}
    stage.require(not early, f"the worker holds {len(early)} of {len(due)} tasks that are not yet due")


def _each_once_in_time(stage: Stage, due: Due, early: float = _ROUNDING) -> None:
    """Wait for tasks by id that are due at times of the monotonic clock, and require the promise.

    What was due before a worker was there runs as soon as it can, and not within the bound.
    """
    back = stage.ledger.of("ready")[-1].time
    stage.wait_for(due, max(back, *due.values()) - time.monotonic() + _OVERDUE)
    stage.pause(1.0)  # for a second run
    late = lateness(stage.ledger.events(), due)
    first = -min(late.values())
    stage.require(first <= early, f"a task ran {first:.1f} s early")
    runs = [event.id for event in stage.ledger.of("start") if event.id in due]
    stage.require(len(runs) == len(due), f"{len(due)} tasks ran {len(runs)} times")
    stage.require_clean()
    if missed := [due[id_] + seconds - back for id_, seconds in late.items() if due[id_] <= back]:
        stage.facts["seconds from the worker's return to the last that was due"] = round(max(missed), 1)
    worst = max((seconds for id_, seconds in late.items() if due[id_] > back), default=0.0)
    stage.in_time("seconds from a task's time to its start, at most", worst, BOUND)
