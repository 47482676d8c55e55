"""From the timeline of a case to what a person reads: a few lines, and a strip of ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Of how many ids of each set every event is told.
_TOLD = 3

#: How many lines a story has at most.
_LINES = 80

#: The width of a strip, in units of its own; ticks that fall on one are drawn once.
WIDTH = 1000

_SETS = ("lost", "duplicated", "recovered", "unexpected", "set_aside", "withdrawn")

_COUNTED = {"sent": "sent", "refused": "refused", "start": "started", "finish": "finished"}

_LANES = (("sent", "sent"), ("start", "started"), ("finish", "finished"))


@dataclass(frozen=True, slots=True)
class Line:
    """One line: seconds from the first event, the kind (a class name on the page), and words."""

    t: float
    kind: str
    text: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """The ticks of one kind of event: what a path draws, and how many there are."""

    label: str
    count: int
    path: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A timeline as a picture."""

    seconds: float
    lanes: Sequence[Lane]
    faults: Lane
    label: str


def story(case: Mapping[str, Any]) -> list[Line]:
    """Return the lines: each fault and what became of each id in question; what is between, counted."""
    lines = list(_lines(case["timeline"], _told(case["account"])))
    if len(lines) > _LINES:
        left = len(lines) - _LINES
        lines = [*lines[:_LINES], Line(lines[_LINES].t, "more", f"and {left:,} more lines")]
    return lines


def strip(case: Mapping[str, Any]) -> Strip | None:
    """Return the picture, none where there is nothing to draw."""
    events = case["timeline"]
    if not events:
        return None
    length = max(event["t"] for event in events) or 1.0
    lanes = [_lane(label, [e["t"] for e in events if e["kind"] == kind], length) for kind, label in _LANES]
    faults = [e for e in events if e["kind"] == "fault"]
    parts = [f"{lane.count} {lane.label}" for lane in lanes]
    parts += [f"{fault['text']} at {fault['t']:.1f} s" for fault in faults[:5]]
    return Strip(
        length,
        lanes,
        _lane("faults", [e["t"] for e in faults], length),
        f"Over {length:.1f} seconds: {', '.join(parts)}",
    )


def _told(account: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(id_ for name in _SETS if name in account for id_ in account[name]["ids"][:_TOLD])


def _lines(events: Sequence[Mapping[str, Any]], told: frozenset[str]) -> Iterator[Line]:
    counted: Counter[str] = Counter()
    since = 0.0
    for event in events:
        line = _line(event, told)
        if line is None:
            if not counted:
                since = event["t"]
            counted[event["kind"]] += 1
            continue
        yield from _sum(counted, since)
        counted.clear()
        yield line
    yield from _sum(counted, since)


def _line(event: Mapping[str, Any], told: frozenset[str]) -> Line | None:
    """Return the line of an event that has one of its own."""
    t, kind, id_, text = event["t"], event["kind"], event["id"], event["text"]
    match kind:
        case "fault" | "note":
            return Line(t, kind, text)
        case "dead":
            return Line(t, "note", f"is a dead letter: {text}", id_)
        case "withdrawn" if id_ in told:
            return Line(t, "note", f"is not to run any more: {text}", id_)
        case "ready":
            return Line(t, kind, f"worker {id_} is ready")
        case "sent" if id_ in told:
            return Line(t, kind, "sent", id_)
        case "refused" if id_ in told:
            return Line(t, kind, f"refused: {text}", id_)
        case "start" if id_ in told:
            again = ", delivered before" if event["again"] else ""
            return Line(t, kind, f"starts in process {event['process']}{again}", id_)
        case "finish" if id_ in told:
            return Line(t, kind, f"finishes in process {event['process']}", id_)
        case _:
            return None


def _sum(counted: Counter[str], since: float) -> Iterator[Line]:
    parts = [f"{counted[kind]:,} {word}" for kind, word in _COUNTED.items() if counted[kind]]
    if parts:
        yield Line(since, "sum", ", ".join(parts))


def _lane(label: str, times: Sequence[float], length: float) -> Lane:
    places = sorted({round(WIDTH * time / length) for time in times})
    return Lane(label, len(times), "".join(f"M{place} 0v1" for place in places))
