"""BEAT-1: of two beats with one schedule each due tick is sent once; none is missed when one is killed."""

from __future__ import annotations

from collections import Counter

from broker_profiles.comparison.processes import Process
from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "BEAT-1"

#: How long beats are watched, in seconds; a tick is due in each of them.
_WATCHED = 6.0

#: How long a beat may take to its first tick, in seconds.
_START = 30.0


@case("one beat sends each tick once")
def alone(stage: Stage) -> None:
    """Start one beat: this is what two should not change."""
    stage.workers.start()
    _schedule(stage)
    beat = _beat(stage)
    stage.pause(_WATCHED)
    _end(stage, beat)
    _none_twice(stage)
    _none_missed(stage)


@case("two beats send each tick once", quick=True)
def two(stage: Stage) -> None:
    """Start two beats, as two machines of one deployment do."""
    stage.workers.start()
    _schedule(stage)
    beats = _beat(stage), _beat(stage)
    stage.pause(_WATCHED)
    _end(stage, *beats)
    _none_twice(stage)
    _none_missed(stage)


@case("one of two beats is killed, and no tick is missed")
def one_killed(stage: Stage) -> None:
    """Kill the beat that came first, for that is the one that would hold a lock."""
    stage.workers.start()
    _schedule(stage)
    first, second = _beat(stage), _beat(stage)
    stage.pause(_WATCHED / 2)
    stage.fault("beat SIGKILL")
    first.kill()
    stage.pause(_WATCHED)
    _end(stage, second)
    _none_missed(stage)


def _schedule(stage: Stage) -> None:
    # Rounded to whole seconds, so that a tick has one time, whichever beat sends it.
    each_second = {"task": "comparison.note", "schedule": 1.0, "relative": True}
    stage.set(beat_schedule={"each second": each_second})


def _beat(stage: Stage) -> Process:
    """Start a beat with a state of its own; return once it has sent a tick."""
    number = len(list(stage.folder.glob("beat-*.log"))) + 1
    beat = stage.command("beat", "--loglevel=INFO", f"--schedule={stage.folder / f'schedule-{number}'}")

    def has_sent() -> bool:
        if not beat.alive:
            raise RuntimeError(f"beat ended: {beat.last_words()[-500:]}")
        return any(event.process == beat.pid for event in stage.ledger.of("sent"))

    stage.wait(has_sent, _START, "beat sends its first tick")
    return beat


def _end(stage: Stage, *beats: Process) -> None:
    """End beats as a deploy does, and wait until all that was sent has run."""
    for beat in beats:
        beat.terminate()
    for beat in beats:
        stage.require(beat.wait(15) is not None, "a beat does not end on SIGTERM")
    stage.wait_for(stage.ledger.ids("sent"), 30)


def _ticks(stage: Stage) -> Counter[int]:
    """Return the second in which a tick was due -> how many messages were sent for it."""
    sent = stage.ledger.ids("sent")
    texts = [event.text for event in stage.ledger.of("sending") if event.id in sent]
    return Counter(int(text.removeprefix("tick ")) for text in texts)


def _none_twice(stage: Stage) -> None:
    ticks = _ticks(stage)
    twice = [tick for tick, count in ticks.items() if count > 1]
    stage.facts["ticks sent twice"] = f"{len(twice)} of {len(ticks)}"
    stage.require(not twice, f"{len(twice)} of {len(ticks)} ticks were sent more than once")


def _none_missed(stage: Stage) -> None:
    ticks = _ticks(stage)
    missed = set(range(min(ticks), max(ticks))) - set(ticks)
    stage.facts["ticks missed"] = f"{len(missed)} of {len(ticks) + len(missed)}"
    if missed:
        # A machine that stands still for a second makes any beat miss one.
        raise TooLate(f"{len(missed)} of {len(ticks) + len(missed)} ticks were missed")
