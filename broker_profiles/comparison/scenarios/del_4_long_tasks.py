"""DEL-4: a task longer than any timeout runs once; a worker frozen past its lease has lost what it held.

The time after which a broker gives a message to somebody else is made short, and the tasks are longer.
"""

from __future__ import annotations

from broker_profiles.comparison.ledger import Event
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from broker_profiles.comparison.workers import Pool, Worker

GUARANTEE = "DEL-4"

#: After how many seconds a message is given away here; how long the long task takes.
_TIMEOUT, _LONG = 3.0, 12.0

#: How long a task takes beside an application whose workers look every nine seconds for what is too old.
_BESIDE = 15.0

#: How long a second run of a task that has finished is waited for, in seconds: no run may begin in it.
_QUIET = 3.0

#: Within how many seconds a message is given away: stock Redis looks every ten, RabbitMQ waits twice.
_GIVEN_AWAY = 25.0


@case("a task takes four times the timeout, in a pool of processes", quick=True)
def long_task(stage: Stage) -> None:
    """Run it, with others waiting behind it and a second worker that would take any of them."""
    stage.shorten_timeouts(_TIMEOUT)
    _runs_once(stage, "prefork")


@case("a task takes four times the timeout, in a worker's only process")
def long_task_in_solo_pool(stage: Stage) -> None:
    """Run it where nothing but the task runs until it has finished."""
    stage.shorten_timeouts(_TIMEOUT)
    _runs_once(stage, "solo")


@case("a task takes four times as long as the broker itself waits for an acknowledgement")
def longer_than_the_broker_waits(stage: Stage) -> None:
    """Shorten the broker's own timeout, which is 30 minutes on RabbitMQ, and none of the client's."""
    stage.server.acknowledge_within(_TIMEOUT)
    _runs_once(stage, "prefork")


@case("another application on the same server has short timeouts")
def beside_short_timeouts(stage: Stage) -> None:
    """Shorten the timeouts of another application's worker; ours have the usual ones, and a long task."""
    stage.set(task_acks_late=True)
    for _ in range(2):
        stage.workers.start(concurrency=1)
    stage.wait_for(stage.client.sent("note", 2), 20)
    # From here on for whoever starts: the other application.
    stage.shorten_timeouts(_TIMEOUT)
    elsewhere = {PREFIX_VARIABLE: f"{stage.prefix}-other"}
    stage.workers.start(concurrency=1, environ=elsewhere)
    other = stage.another_client(elsewhere)
    (running,) = stage.client.sent("note", 1, _BESIDE)
    theirs = other.sent("note", 2)
    stage.wait_for([running, *theirs], _BESIDE + 10)
    _began_once(stage, running)
    stage.require_clean()
    other.clean()


@case("a worker is frozen past its timeout, and goes on when another has run its task")
def frozen_worker_comes_back(stage: Stage) -> None:
    """Freeze it in the middle of a task. The task runs elsewhere; nothing runs a third time."""
    frozen, _, running = _freeze_in_the_middle(stage)
    stage.wait_for([running], _LONG + 10)
    stage.fault("worker thawed")
    frozen.thaw()
    stage.wait_for(stage.client.sent("note", 5), 20)
    stage.pause(_QUIET)
    runs = len(_starts(stage, running))
    stage.require(runs == 2, f"the task of the frozen worker began {runs} times, and should have begun twice")


@case("a worker that was frozen cannot acknowledge the task that another runs meanwhile")
def frozen_worker_cannot_acknowledge(stage: Stage) -> None:
    """Thaw it while another runs its task, let it finish, and kill the other: the task has to run again."""
    frozen, other, running = _freeze_in_the_middle(stage)
    stage.fault("worker thawed")
    frozen.thaw()
    # Time for its own run to end, and for the acknowledgement that must be worth nothing.
    stage.pause(_TIMEOUT)
    stage.fault("other worker SIGKILL")
    other.kill()
    stage.wait_for_value(
        lambda: len(_starts(stage, running)) > 2,
        _GIVEN_AWAY,
        "the task was not run again after the worker that held it had been killed",
    )


def _runs_once(stage: Stage, pool: Pool) -> None:
    # As everybody has it who does not want to lose a task with its worker.
    stage.set(task_acks_late=True)
    for _ in range(2):
        stage.workers.start(pool=pool, concurrency=1)
    (running,) = stage.client.sent("note", 1, _LONG)
    behind = stage.client.sent("note", 5)
    stage.wait_for([running], _LONG + 10)
    _began_once(stage, running)
    stage.wait_for(behind, 10)
    stage.require_clean()


def _began_once(stage: Stage, running: str) -> None:
    stage.pause(_QUIET)
    again = len(_starts(stage, running)) - 1
    stage.require(not again, f"the long task was run again {again} times while its worker lived")


def _freeze_in_the_middle(stage: Stage) -> tuple[Worker, Worker, str]:
    """Freeze a worker while it runs a task; return it, the other, and the task once that has begun there."""
    stage.shorten_timeouts(_TIMEOUT)
    stage.set(task_acks_late=True)
    workers = [stage.workers.start(concurrency=1) for _ in range(2)]
    (running,) = stage.client.sent("note", 1, _TIMEOUT * 2)
    stage.wait_for([running], 20, kind="start")
    (start,) = _starts(stage, running)
    workers.sort(key=lambda worker: start.process in worker.children())
    other, frozen = workers
    fault = stage.ledger.note("worker frozen", fault=True)
    frozen.freeze()
    stage.wait_for_value(
        lambda: len(_starts(stage, running)) > 1,
        _GIVEN_AWAY,
        "the task of a frozen worker did not run elsewhere",
    )
    second = _starts(stage, running)[1]
    stage.facts["seconds from the freeze to the second run"] = round(second.time - fault.time, 3)
    return frozen, other, running


def _starts(stage: Stage, id_: str) -> list[Event]:
    """Return the starts of a task, in order."""
    return [event for event in stage.ledger.of("start") if event.id == id_]
