"""RES-2: groups, chords, chains, maps and chunks work, or are refused at submit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from celery import chain, chord, group
from celery.result import GroupResult

from broker_profiles.comparison.client import ClientError, ClientHung
from broker_profiles.comparison.ledger import Kind
from broker_profiles.comparison.scenario import NotApplicable, PromiseBroken, case
from broker_profiles.comparison.stage import Stage
from broker_profiles.errors import BrokerProfilesError

GUARANTEE = "RES-2"

#: How long one shape may take, in seconds.
_WITHIN = 15.0

#: How long a chord whose worker was killed may take to complete, in seconds; DEL-1 promises 30.
_COMPLETE = 40.0


_PAIRS = [(number, number) for number in range(6)]
_DOUBLES = [2 * number for number in range(6)]

#: What a result store that cannot do something raises, Celery's or ours; anything else is a failure.
_REFUSALS = (NotImplementedError, BrokerProfilesError)

#: For as long as this nothing may run of what was refused, in seconds.
_WATCHED = 1.0

#: Name -> how the shape is made of two tasks, and its value.
Shapes = dict[str, tuple[Callable[[Any, Any], Any], Any]]

#: What needs no counting of parts.
SHAPES: Shapes = {
    "a group of 20": (lambda add, _: group(add.s(n, 1) for n in range(20)), list(range(1, 21))),
    "an empty group": (lambda add, _: group([]), []),
    "a chain": (lambda add, _: chain(add.s(1, 2), add.s(3), add.s(4)), 10),
    "a chain that ends in a group": (lambda add, _: chain(add.s(1, 2), group(add.s(1), add.s(2))), [4, 5]),
    "a map": (lambda _, total: total.map([[1, 2], [3, 4]]), [3, 7]),
    "a starmap": (lambda add, _: add.starmap(_PAIRS), _DOUBLES),
    "chunks": (lambda add, _: add.chunks(_PAIRS, 2).group(), [_DOUBLES[n : n + 2] for n in (0, 2, 4)]),
}

#: What needs the parts of a chord counted.
CHORDS: Shapes = {
    "a chord of 20": (lambda add, total: chord([add.s(n, 1) for n in range(20)], total.s()), 210),
    "a chord of one": (lambda add, total: chord([add.s(1, 2)], total.s()), 3),
    "a chord of nothing": (lambda _, total: chord([], total.s()), 0),
    "a chord in a chain": (
        lambda add, total: chain(add.s(1, 2), group(add.s(1), add.s(2)), total.s(), add.s(1)),
        10,
    ),
    "a chord in a chord": (
        lambda add, total: chord([_twos(add, total), add.s(3, 3)], total.s()),
        10,
    ),
    "a chord whose body is a chain": (
        lambda add, total: chord([add.s(1, 1), add.s(1, 1)], chain(total.s(), add.s(1))),
        5,
    ),
}


def _twos(add: Any, total: Any) -> Any:
    return chord([add.s(1, 1), add.s(1, 1)], total.s())


def run(app: Any, name: str) -> list[Any]:
    """Send one shape and return `["refused", error]`, or `["done", value]`. Raises what `get()` raises."""
    make, _ = {**SHAPES, **CHORDS}[name]
    try:
        signature = make(app.tasks["comparison.add"], app.tasks["comparison.total"])
        # Not as sent: a map has an id, and what it calls, which writes the ledger, has none.
        result = _noted(signature.apply_async(), "sending")
    except _REFUSALS as error:
        return ["refused", repr(error)]
    return ["done", result.get(timeout=_WITHIN)]


def save_group(app: Any) -> list[str]:
    """Send a group, save it, and return `["saved", id]`, or `["refused", error]`."""
    add = app.tasks["comparison.add"]
    sent = _noted(group(add.s(n, 1) for n in range(3)).apply_async())
    try:
        sent.save()
    except _REFUSALS as error:
        return ["refused", repr(error)]
    return ["saved", str(sent.id)]


def restore_group(app: Any, id_: str) -> Any:
    """Return the values of a saved group, none where there is none of this id."""
    restored = GroupResult.restore(id_, app=app)
    return None if restored is None else restored.get(timeout=_WITHIN)


def fail_in_header(app: Any) -> str:
    """Run a chord of which one part fails and return the class of the error that its body gets."""
    add, fail, total = (app.tasks[f"comparison.{name}"] for name in ("add", "fail", "total"))
    result = chord([add.s(1, 1), fail.s(), add.s(2, 2)], total.s()).apply_async()
    _noted(result.parent)
    error = result.get(timeout=_WITHIN, propagate=False)
    return type(error).__name__


def start_chord(app: Any, parts: int, seconds: float) -> str:
    """Send a chord with so many parts, each of which takes so long; return the id of its body."""
    add, total = app.tasks["comparison.add"], app.tasks["comparison.total"]
    return str(_noted(chord([add.s(1, 1, seconds) for _ in range(parts)], total.s()).apply_async()).id)


def _noted(result: Any, kind: Kind = "sent") -> Any:
    """Write down that everything below a result was sent, and return the result."""
    from broker_profiles.comparison.workload import ledger  # only a client has a ledger

    for id_ in _ids(result):
        ledger().record(kind, id_)
    return result


def _ids(result: Any) -> Iterator[str]:
    if result is None:
        return
    yield from _ids(result.parent)
    if isinstance(result, GroupResult):
        for part in result.results:
            yield from _ids(part)
    else:
        yield str(result.id)


@case("groups, chains, maps, starmaps and chunks", quick=True)
def without_counting(stage: Stage) -> None:
    """Run each shape that needs no counting of parts and compare its value."""
    stage.workers.start()
    _run(stage, SHAPES, refusable=False)


@case("chords, also of one, of nothing, in chains and in chords", quick=True)
def with_counting(stage: Stage) -> None:
    """Run each shape whose parts the result store counts; a store that cannot must say so at once."""
    stage.workers.start()
    refused = _run(stage, CHORDS, refusable=not stage.profile.guarantees.chords)
    stage.facts["refused"] = ", ".join(refused) or "nothing"
    if refused:
        stage.pause(_WATCHED)
        # What was accepted is in the ledger with all its parts.
        stage.require(not stage.account().unexpected, "a part of what was refused ran")


@case("a chord of which one part fails")
def part_fails(stage: Stage) -> None:
    """The body must not run, and who waits for it must be told."""
    _needs_chords(stage)
    stage.workers.start()
    found = _call(stage, "a chord with a part that fails", fail_in_header)
    stage.require(found == "ChordError", f"the body of a chord with a part that failed gave {found}")
    stage.pause(1)
    stage.require(not stage.account().unexpected, "the body ran though a part had failed")


@case("a group is saved, and restored by another process")
def saved_group(stage: Stage) -> None:
    """Restore a group by its id, from what the result store has of it; one that cannot must say so."""
    stage.workers.start()
    outcome, id_ = _call(stage, "saving a group", save_group)
    stage.facts["saving a group"] = outcome
    stage.wait_for(stage.ledger.ids("sent"), _WITHIN)
    if outcome == "refused":
        stage.require(not stage.profile.guarantees.chords, f"saving a group was refused: {id_}")
        return
    try:
        found = stage.another_client().call(restore_group, id_, within=_WITHIN + 15)
    except ClientError as error:
        raise PromiseBroken(f"a saved group could not be restored: {error}") from None
    stage.require(found == [1, 2, 3], f"a group saved with [1, 2, 3] was restored with {found}")


@case("the worker is killed in the middle of a chord")
def worker_killed(stage: Stage) -> None:
    """Kill the worker when some parts are done and some run; the body runs once, with every part."""
    _needs_chords(stage)
    with contextlib.suppress(NotApplicable):
        stage.shorten_timeouts(4)
    stage.workers.start()
    body = _call(stage, "a chord", start_chord, 8, 1.5)
    parts = stage.ledger.ids("sent") - {body}
    stage.wait_for_value(lambda: len(stage.ledger.ids("start")) >= 4, 20, "the parts did not run")
    stage.fault("worker SIGKILL")
    for worker in stage.workers:
        worker.kill()
    stage.workers.revive()
    stage.wait_for([*parts, body], _COMPLETE)
    state, value = stage.client.result(body)
    stage.require((state, value) == ("SUCCESS", 16), f"the chord of 8 twos ended with {state} {value}")
    stage.pause(1)
    runs = [event for event in stage.ledger.of("start") if event.id == body]
    stage.require(len(runs) == 1, f"the body of the chord ran {len(runs)} times")


def _needs_chords(stage: Stage) -> None:
    if not stage.profile.guarantees.chords:
        stage.not_applicable("its result store cannot count the parts of a chord")


def _run(stage: Stage, shapes: Shapes, *, refusable: bool) -> list[str]:
    """Run shapes and require their values; return the names of those that were refused, where any may be."""
    refused = []
    for name, (_, value) in shapes.items():
        outcome, found = _call(stage, name, run, name)
        if outcome == "refused":
            stage.require(refusable, f"{name} was refused: {found}")
            refused.append(name)
        else:
            stage.require(found == value, f"{name} gave {found} and not {value}")
    return refused


def _call(stage: Stage, name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of this file in the client. Raises `PromiseBroken` for an error or a hang."""
    try:
        return stage.client.call(function, *args, within=_WITHIN + 15)
    except ClientHung:
        raise PromiseBroken(f"{name} did not return within {_WITHIN + 15:g} s") from None
    except ClientError as error:
        raise PromiseBroken(f"{name} failed: {error}") from None
