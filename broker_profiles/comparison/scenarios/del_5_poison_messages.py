"""DEL-5: a message that kills its worker becomes a dead letter after 5 deliveries."""

from __future__ import annotations

import shutil
import time

from celery import Celery

from broker_profiles.comparison.scenario import PromiseBroken, TooLate, case
from broker_profiles.comparison.stage import Stage
from broker_profiles.runtime.dead_letter import DeadLetter
from broker_profiles.runtime.dead_letters import discard_dead_letters, replay_dead_letters

GUARANTEE = "DEL-5"

#: The bound of the promise: so many deliveries.
DELIVERIES = 5

#: Deliveries after which a message is said to go round for ever.
_ENDLESS = 2 * DELIVERIES + 1

#: Seconds without a delivery after which a message that nobody promises to keep counts as gone.
_GONE = 10.0

#: Seconds within which five deliveries are over where each costs a process, and a whole worker.
_PROCESSES, _WORKERS = 60.0, 120.0

#: What a worker may take up, in MiB, and how much more a task asks for.
_MEMORY, _APPETITE = 400, 2000


@case("a task kills its pool process each time", quick=True)
def child_killed_each_time(stage: Stage) -> None:
    """The worker lives, runs other tasks before and after, and the poison is set aside with its reason."""
    worker = stage.workers.start(concurrency=2)
    (poison,) = stage.client.sent("die")
    others = stage.client.sent("note", 5)
    _is_set_aside(stage, poison, _PROCESSES)
    others += stage.client.sent("note", 5)
    stage.wait_for(others, 20)
    stage.require(worker.alive, "the worker ended with its child")


@case("a task kills the whole worker each time, which a supervisor starts again")
def worker_killed_each_time(stage: Stage) -> None:
    """Nobody is left to count: the broker has to, and what waits behind the poison has to run."""
    stage.configure(BROKER_PROFILE_LEASE_SECONDS="2")
    stage.workers.start("--without-mingle", "--without-gossip", pool="solo", concurrency=1)
    (poison,) = stage.client.sent("die")
    others = stage.client.sent("note", 3)
    _is_set_aside(stage, poison, _WORKERS, revive=True)
    _run_in_the_end(stage, others)


@case("a task that needs more memory than there is does not go round for ever")
def out_of_memory(stage: Stage) -> None:
    """Celery ends a worker whose task has raised `MemoryError`; a supervisor starts it again."""
    if shutil.which("prlimit") is None:
        stage.not_applicable("prlimit, which limits memory, is not installed")
    stage.configure(BROKER_PROFILE_LEASE_SECONDS="2")
    limit = ["prlimit", f"--data={_MEMORY << 20}"]
    stage.workers.start("--without-mingle", "--without-gossip", concurrency=1, before=limit)
    (poison,) = stage.client.sent("swallow", 1, _APPETITE)
    others = stage.client.sent("note", 5)
    _is_set_aside(stage, poison, _WORKERS, revive=True)
    _run_in_the_end(stage, others)


@case("a dead letter is listed, replayed when its task is mended, and another discarded", quick=True)
def replayed_and_discarded(stage: Stage) -> None:
    """Two messages die; the bug is mended; one is replayed and runs, the other is thrown away."""
    stage.configure(BROKER_PROFILE_DELIVERY_LIMIT="1")
    mended = stage.folder / "mended"
    stage.workers.start(concurrency=1)
    kept, unwanted = stage.client.sent("die", 2, str(mended))
    letters = [_dead_letter(stage, id_, _PROCESSES) for id_ in (kept, unwanted)]
    mended.touch()
    stage.require(stage.client.call(replay, letters[0].id) == 1, "the dead letter could not be replayed")
    stage.require(stage.client.call(discard, letters[1].id) == 1, "the dead letter could not be discarded")
    stage.wait_for([kept], 20, what="did not run when replayed")
    stage.require(not stage.client.dead_letters(), "dead letters are listed that are no more")
    stage.require(unwanted not in stage.ledger.ids("finish"), "what was discarded ran")


@case("a task that rejects its message for ever is delivered five times")
def rejected_for_ever(stage: Stage) -> None:
    """`Reject(requeue=True)` is how a task says «not now»; said each time it must come to an end."""
    worker = stage.workers.start(concurrency=1)
    (poison,) = stage.client.sent("refuse", 1, 1_000_000)
    others = stage.client.sent("note", 5)
    _is_set_aside(stage, poison, _PROCESSES)
    stage.wait_for(others, 20)
    stage.require(worker.alive, "the worker ended")


@case("a rejected message comes back, and it is noted where")
def rejected_once(stage: Stage) -> None:
    """It runs again; whether before or behind what waits is no promise, but good to know."""
    stage.workers.start(concurrency=1)
    (blocker,) = stage.client.sent("note", 1, 2.0)
    stage.wait_for([blocker], 20, kind="start")
    (rejected,) = stage.client.sent("refuse", 1, 1)
    others = stage.client.sent("note", 20)
    stage.wait_for([blocker, rejected, *others], 30)
    again = _deliveries(stage, rejected)[-1]
    before = {event.id for event in stage.ledger.of("start") if event.time < again} & set(others)
    stage.facts["ran before the rejected message came back"] = f"{len(before)} of {len(others)}"
    stage.require_clean()


def replay(app: Celery, id_: str) -> int:
    """In the client: replay a dead letter."""
    return replay_dead_letters(app, [id_])


def discard(app: Celery, id_: str) -> int:
    """In the client: discard a dead letter."""
    return discard_dead_letters(app, [id_])


def _is_set_aside(stage: Stage, poison: str, seconds: float, *, revive: bool = False) -> None:
    letter = _dead_letter(stage, poison, seconds, revive=revive)
    stage.facts["deliveries"] = letter.deliveries
    started = _deliveries(stage, poison)
    stage.require(
        letter.deliveries == len(started) == DELIVERIES,
        f"it was started {_times(started)} and set aside after {letter.deliveries} deliveries",
    )
    stage.require(letter.reason, "the dead letter has no reason")
    stage.require(letter.task, "the dead letter does not say which task it is")


def _run_in_the_end(stage: Stage, ids: list[str]) -> None:
    """Return once these have run; the last worker that the poison ended may still be about to end."""

    def ran() -> bool:
        stage.workers.revive()
        return set(ids) <= stage.ledger.ids("finish")

    stage.wait_for_value(ran, _PROCESSES, "what waited behind it has not run")


def _dead_letter(stage: Stage, poison: str, seconds: float, *, revive: bool = False) -> DeadLetter:
    """Return the dead letter of a message. Raises `PromiseBroken` with what becomes of it instead."""
    promised = stage.profile.guarantees.holds(GUARANTEE)

    def found() -> DeadLetter | None:
        if revive:
            stage.workers.revive()
        stage.pause(0.3)  # so that looking does not become a load
        deliveries = _deliveries(stage, poison)
        if len(deliveries) >= _ENDLESS:
            raise PromiseBroken(f"it was delivered {len(deliveries)} times and goes on")
        if not promised and deliveries and time.monotonic() - deliveries[-1] > _GONE:
            raise PromiseBroken(f"it was delivered {_times(deliveries)} and is gone: nobody can look at it")
        return stage.dead_letter(poison)

    try:
        letter = stage.wait(found, seconds, "a dead letter")
    except TooLate:
        often = _times(_deliveries(stage, poison))
        text = f"it was delivered {often} and is no dead letter after {seconds:g} s"
        raise PromiseBroken(text) from None
    assert letter is not None
    return letter


def _deliveries(stage: Stage, id_: str) -> list[float]:
    """Return the times at which a task was started."""
    return [event.time for event in stage.ledger.of("start") if event.id == id_]


def _times(deliveries: list[float]) -> str:
    return "once" if len(deliveries) == 1 else f"{len(deliveries)} times"
