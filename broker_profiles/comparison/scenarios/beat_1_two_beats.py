"""BEAT-1: of two beats with one schedule each due tick is sent once; none is missed when one is killed.

Nor when one is frozen; and that one, when it goes on, sends nothing once more.
"""

from __future__ import annotations

import time

from broker_profiles.comparison.processes import Process
from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "BEAT-1"

#: How long beats are watched, in seconds; a tick is due in each of them.
_WATCHED = 6.0

#: How long a beat may take to start, in seconds, and then one of them to the first tick.
_START = 30.0


@case("one beat sends each tick once")
def alone(stage: Stage) -> None:
    """Start one beat: this is what two should not change."""
    stage.workers.start()
    _schedule(stage)
    beat = _beat(stage)
    _wait_for_a_tick(stage)
    stage.pause(_WATCHED)
    last = _end(stage, beat)
    _none_twice(stage)
    _none_missed(stage, last)


@case("two beats send each tick once", quick=True)
def two(stage: Stage) -> None:
    """Start two beats, as two machines of one deployment do."""
    stage.workers.start()
    _schedule(stage)
    beats = _beat(stage), _beat(stage)
    _wait_for_a_tick(stage)
    stage.pause(_WATCHED)
    last = _end(stage, *beats)
    _none_twice(stage)
    _none_missed(stage, last)


@case("one of two beats is killed, and no tick is missed")
def one_killed(stage: Stage) -> None:
    """Kill the beat that came first, for that is the one that would hold a lock."""
    stage.workers.start()
    _schedule(stage)
    first = _beat(stage)
    _wait_for_a_tick(stage)
    second = _beat(stage)
    stage.pause(_WATCHED / 2)
    stage.fault("beat SIGKILL")
    first.kill()
    stage.pause(_WATCHED)
    last = _end(stage, second)
    _none_twice(stage)
    _none_missed(stage, last)


@case("one of two beats is frozen, and sends no tick again when it goes on")
def one_frozen(stage: Stage) -> None:
    """Freeze the one that came first; when it goes on kill the other, for then it has to send again."""
    stage.workers.start()
    _schedule(stage)
    first = _beat(stage)
    _wait_for_a_tick(stage)
    second = _beat(stage)
    stage.pause(_WATCHED / 2)
    stage.fault("beat SIGSTOP")
    first.freeze()
    try:
        stage.pause(_WATCHED / 2)
    finally:
        stage.fault("beat SIGCONT")
        first.thaw()
    stage.pause(_WATCHED / 2)
    stage.fault("the other beat SIGKILL")
    second.kill()
    stage.pause(_WATCHED / 2)
    last = _end(stage, first)
    _none_twice(stage)
    _none_missed(stage, last)


def _schedule(stage: Stage) -> None:
    # Rounded to whole seconds, so that a tick has one time, whichever beat sends it.
    each_second = {"task": "comparison.note", "schedule": 1.0, "relative": True}
    stage.set(beat_schedule={"each second": each_second})


def _beat(stage: Stage) -> Process:
    """Start a beat with a state of its own; return once it has begun, for another may do the sending."""
    number = len(list(stage.folder.glob("beat-*.log"))) + 1
    beat = stage.command("beat", "--loglevel=INFO", f"--schedule={stage.folder / f'schedule-{number}'}")

    def has_begun() -> bool:
        if not beat.alive:
            raise RuntimeError(f"beat ended: {beat.last_words()[-500:]}")
        return any(event.process == beat.pid for event in stage.ledger.of("note"))

    stage.wait(has_begun, _START, "beat begins")
    return beat


def _wait_for_a_tick(stage: Stage) -> None:
    stage.wait_for_value(lambda: _ticks(stage), _START, "no tick is sent")


def _end(stage: Stage, *beats: Process) -> int:
    """End beats as a deploy does, wait until all that was sent has run; return the last second they had."""
    last = int(time.time()) - 1
    for beat in beats:
        beat.terminate()
    for beat in beats:
        stage.require(beat.wait(15) is not None, "a beat does not end on SIGTERM")
    stage.wait_for(stage.ledger.ids("sent"), 30)
    return last


def _ticks(stage: Stage) -> dict[int, list[int]]:
    """Return the second in which a tick was due -> the process of each message that was sent for it."""
    # One that was killed may have sent what it did not write down any more; then it has run.
    sent = stage.ledger.ids("sent") | stage.ledger.ids("start")
    ticks: dict[int, list[int]] = {}
    for event in stage.ledger.of("sending"):
        if event.id in sent:
            ticks.setdefault(int(event.text.removeprefix("tick ")), []).append(event.process)
    return ticks


def _none_twice(stage: Stage) -> None:
    ticks = _ticks(stage)
    # With none in the second before, the first of the two is that one's, and late.
    twice = [beats for second, beats in ticks.items() if len(beats) > 1 and second - 1 in ticks]
    stage.facts["ticks sent twice"] = f"{len(twice)} of {len(ticks)}"
    if not twice:
        return
    text = f"{len(twice)} of {len(ticks)} ticks were sent more than once"
    stage.require(all(len(set(beats)) == 1 for beats in twice), text)
    # On a machine that stands still one beat sends a tick a second late, and the next in time.
    raise TooLate(text)


def _none_missed(stage: Stage, last: int) -> None:
    """Require a tick in each second from that of the first one to the last in which beats were there."""
    ticks = _ticks(stage)
    due = set(range(min(ticks), last + 1))
    missed = due - set(ticks)
    stage.facts["ticks missed"] = f"{len(missed)} of {len(due)}"
    if missed:
        # A machine that stands still for a second makes any beat miss one.
        raise TooLate(f"{len(missed)} of {len(due)} ticks were missed")
