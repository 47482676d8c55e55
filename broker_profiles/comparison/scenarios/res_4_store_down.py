"""RES-4: a result store that is down delays `delay()` by 2 s at most, and loses no finished result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from broker_profiles.comparison.client import Client, ClientError, ClientHung
from broker_profiles.comparison.scenario import NotApplicable, PromiseBroken, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "RES-4"

#: The bound of the promise, in seconds that a call of `delay()` takes.
BOUND = 2.0

#: When a call that has not returned counts as hung, in seconds.
_HUNG = 25.0

#: How long the store is away for what finishes meanwhile: longer than Celery's own 20 attempts, in seconds.
_AWAY = 24.0

#: How soon after the store's return each result has to be there, in seconds.
_BACK = 30.0


@case("delay() while the store refuses connections", quick=True)
def refused(stage: Stage) -> None:
    """Cut the store off from everybody, and send."""
    _delay_returns(stage, stage.results.cut)


@case("delay() while the store does not answer")
def silent(stage: Stage) -> None:
    """Let nothing pass to the store and back, and send."""
    _delay_returns(stage, stage.results.stall)


@case("tasks finish while the store is away")
def finished_meanwhile(stage: Stage) -> None:
    """Take the store away while tasks run; their results have to be there after its return."""
    stage.workers.start(concurrency=4)
    (first,) = stage.client.sent("add", 1, 2, 3)
    stage.require(stage.client.result(first)[0] == "SUCCESS", "no result before the store went away")
    ids = stage.client.sent("add", 4, 2, 3, 3.0)
    stage.wait_for(ids, 20, kind="start")
    try:
        stage.results.cut()
    except NotApplicable:
        stage.results.freeze()
    stage.pause(_AWAY)
    stage.results.heal()
    stage.fault("result store back")
    began = stage.ledger.note("waiting for the results").time
    for id_ in ids:
        stage.wait_for_value(partial(_is_there, stage.client, id_), _BACK, "a finished result was lost")
    stage.in_time("seconds from the store's return to all results", _now(stage) - began, _BACK)


def _delay_returns(stage: Stage, fault: Callable[[], None]) -> None:
    if stage.results is stage.server:
        stage.not_applicable("broker and result store are one: the store is never away alone")
    stage.workers.start()
    (first,) = stage.client.sent("add", 1, 2, 3)
    stage.wait_for([first], 20)
    stage.require(stage.client.result(first)[0] == "SUCCESS", "no result before the store went away")
    fault()
    known = _call(stage.client)
    other = stage.another_client()
    other.sent("note")  # connects to the broker: what is measured is the store's part
    new = _call(other)
    stage.results.heal()
    stage.wait_for(stage.ledger.ids("sent"), _BACK)
    stage.in_time("seconds of delay() in a process that knew the store", known, BOUND)
    stage.in_time("seconds of delay() in a new process", new, BOUND)


def _call(client: Client) -> float:
    """Send one task and return how many seconds that took. Raises `PromiseBroken`."""
    try:
        (answer,) = client.send("add", 1, 2, 3, within=_HUNG)
    except ClientHung:
        raise PromiseBroken(f"delay() did not return within {_HUNG:g} s") from None
    if answer.error is not None:
        raise PromiseBroken(f"delay() failed after {answer.seconds:.1f} s: {answer.error}")
    return answer.seconds


def _is_there(client: Client, id_: str) -> bool:
    try:
        return client.result(id_, 1.0) == ("SUCCESS", 5)
    except ClientError:  # its connection may be from before
        return False


def _now(stage: Stage) -> float:
    return stage.ledger.note("all results are there").time
