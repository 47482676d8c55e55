"""CTL-1: remote control after a freeze, a restart of the broker, beside others on it, of a busy worker."""

from __future__ import annotations

import contextlib
import time

from broker_profiles.comparison.client import Client, ClientError
from broker_profiles.comparison.scenario import NotApplicable, case
from broker_profiles.comparison.scenarios.ctl_1_remote_control import BOUND, answer_of, ask
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from broker_profiles.comparison.workers import Worker

GUARANTEE = "CTL-1"

#: How long a busy task takes, in seconds.
_LONG = 6.0

#: Within this many seconds others would have answered too.
_OTHERS = 3.0


@case("a worker that was frozen for 20 s answers again")
def frozen(stage: Stage) -> None:
    """Freeze a worker for longer than a lease; ask while it is frozen, and after."""
    worker, other = stage.workers.start(), stage.workers.start()
    stage.fault("worker frozen")
    worker.freeze()
    stage.require(answer_of(stage, other, "ping"), "a worker does not answer while another one is frozen")
    stage.pause(20)
    worker.thaw()
    stage.fault("worker thawed")
    _answer_in_time(stage, worker, other)
    stage.wait_for(stage.client.sent("note", 5), BOUND)
    stage.require_clean()


@case("workers answer again after the broker was killed and restarted")
def broker_restarted(stage: Stage) -> None:
    """Kill the broker, start it again, ask."""
    workers = [stage.workers.start(), stage.workers.start()]
    _answer_in_time(stage, *workers)
    stage.server.kill()
    stage.server.start()
    try:
        _ = stage.server.link
    except NotApplicable:
        # A file lives in the workers, and ends with them: a supervisor starts them again.
        stage.workers.revive()
        workers = [worker for worker in stage.workers if worker.alive]
    stage.require(all(worker.alive for worker in workers), "a worker ended when the broker was restarted")
    _answer_in_time(stage, *workers)


@case("two applications on one broker do not hear each other")
def two_applications(stage: Stage) -> None:
    """Give a worker and a client other names on the same server: each client reaches its own worker."""
    elsewhere = {PREFIX_VARIABLE: f"{stage.prefix}-other"}
    ours, theirs = stage.workers.start(), stage.workers.start(environ=elsewhere)
    other = stage.another_client(elsewhere)
    for client, worker in ((stage.client, ours), (other, theirs)):
        names = _answering(stage, client, worker)
        stage.require(names == {worker.name}, f"{sorted(names)} answer, and not {worker.name} alone")
    sent = stage.client.sent("note", 5)
    stage.wait_for(sent, BOUND)
    active = {event.process for event in stage.ledger.of("start")}
    stage.require(not active & set(theirs.children()), "a worker ran a task of another application")
    theirs.kill()
    other.clean()


@case("a solo worker that is busy answers when it is free")
def busy_solo(stage: Stage) -> None:
    """The solo pool runs tasks in the thread that answers: a question waits, and is not lost."""
    worker = stage.workers.start(pool="solo")
    (running,) = stage.client.sent("note", 1, _LONG)
    stage.wait_for([running], 20, kind="start")
    answer = stage.client.call(ask, "ping", [worker.name], {}, BOUND, within=2 * BOUND)
    stage.require(answer, f"no answer within {BOUND:g} s, though it was busy for {_LONG:g} s only")
    stage.require(running in stage.ledger.ids("finish"), "it answered while its only thread was busy")
    stage.require_clean()


def _answering(stage: Stage, client: Client, worker: Worker) -> set[str]:
    """Ping all until one has answered that has to, and once more for others; return who has answered."""
    names: set[str] = set()

    def has_answered(within: float = 1.0) -> bool:
        names.update(name for reply in client.control("ping", within=within) for name in reply)
        return worker.name in names

    stage.wait_for_value(has_answered, BOUND, f"{worker.name} does not answer")
    has_answered(_OTHERS)
    return names


def _answer_in_time(stage: Stage, *workers: Worker) -> None:
    """Ping until all answer: a question may be lost with the connection it went over."""
    names = [worker.name for worker in workers]
    began = time.monotonic()

    def all_answer() -> bool:
        with contextlib.suppress(ClientError):  # its connection is the old one
            return len(stage.client.call(ask, "ping", names, {}, 1.0, within=BOUND)) == len(names)
        return False

    stage.wait_for_value(all_answer, 2 * BOUND, "not every worker answers")
    stage.in_time("seconds until every worker answered", time.monotonic() - began, BOUND)
