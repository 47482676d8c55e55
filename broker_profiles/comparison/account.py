"""From the events of a ledger to a verdict: sets of task ids, the order of starts, and times.

Pure functions of events; nothing here reads a file, a clock or a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from broker_profiles.comparison.ledger import Event

Ids = frozenset[str]


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every task, by id.

    `sent`: `delay()` returned. `lost`: sent, never finished, and neither seen among the dead letters, as
    those that are `set_aside` were, nor `withdrawn`, as what is revoked or expires is. `duplicated`: ran
    again though a run of it had finished, or finished more than once. `recovered`: started more than once,
    for a first run did not finish, and finished once. `unexpected`: ran, though nobody ever tried to send
    it. `unsure`: ran or may run, though `delay()` failed or never returned.
    """

    sent: Ids
    lost: Ids
    duplicated: Ids
    recovered: Ids
    unexpected: Ids
    unsure: Ids
    set_aside: Ids = frozenset()
    withdrawn: Ids = frozenset()

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, run twice or made up."""
        return not (self.lost or self.duplicated or self.unexpected)

    def summary(self) -> str:
        """Return the verdict in words, such as `100 sent, 1 lost, 2 recovered`."""
        parts = [f"{len(self.sent):,} sent"]
        for name in ("lost", "duplicated", "recovered", "unexpected", "set_aside", "withdrawn"):
            ids: Ids = getattr(self, name)
            if ids or name in ("lost", "duplicated"):
                parts.append(f"{len(ids):,} {name.replace('_', ' ')}")
        return ", ".join(parts)


def account(events: Iterable[Event]) -> Account:
    """Return the account of a finished run."""
    tried: set[str] = set()
    sent: set[str] = set()
    starts: dict[str, int] = {}
    finishes: dict[str, int] = {}
    duplicated: set[str] = set()
    dead: set[str] = set()
    withdrawn: set[str] = set()
    for event in sorted(events, key=lambda event: event.time):
        match event.kind:
            case "sending" | "refused":
                tried.add(event.id)
            case "sent":
                sent.add(event.id)
            case "start":
                starts[event.id] = starts.get(event.id, 0) + 1
                if finishes.get(event.id):
                    duplicated.add(event.id)
            case "finish":
                finishes[event.id] = finishes.get(event.id, 0) + 1
                if finishes[event.id] > 1:
                    duplicated.add(event.id)
            case "dead":
                dead.add(event.id)
            case "withdrawn":
                withdrawn.add(event.id)
            case _:
                pass
    finished = set(finishes)
    return Account(
        sent=frozenset(sent),
        lost=frozenset(sent - finished - dead - withdrawn),
        duplicated=frozenset(duplicated),
        recovered=frozenset(
            id_ for id_, count in starts.items() if count > 1 and id_ in finished and id_ not in duplicated
        ),
        unexpected=frozenset((set(starts) | finished) - sent - tried),
        unsure=frozenset(tried - sent),
        set_aside=frozenset(dead - finished),
        withdrawn=frozenset(withdrawn - finished - dead),
    )


def starts_in_order(events: Iterable[Event]) -> list[str]:
    """Return the ids in the order of their first starts."""
    first: dict[str, float] = {}
    for event in sorted(events, key=lambda event: event.time):
        if event.kind == "start":
            first.setdefault(event.id, event.time)
    return list(first)


def out_of_order(wanted: Iterable[str], happened: Iterable[str]) -> list[str]:
    """Return the ids that started before one they had to follow; ids of one list only do not count."""
    place = {id_: number for number, id_ in enumerate(wanted)}
    seen = [id_ for id_ in happened if id_ in place]
    early: list[str] = []
    lowest = len(place)
    for id_ in reversed(seen):
        if place[id_] > lowest:
            early.append(id_)
        lowest = min(lowest, place[id_])
    return early[::-1]


def lateness(events: Iterable[Event], due: Mapping[str, float]) -> dict[str, float]:
    """Return id -> seconds from when each was due to its first start; negative where it was early."""
    first: dict[str, float] = {}
    for event in sorted(events, key=lambda event: event.time):
        if event.kind == "start" and event.id in due:
            first.setdefault(event.id, event.time - due[event.id])
    return first


def overlapping(events: Iterable[Event]) -> Ids:
    """Return the ids of which two runs went on at once, each of which finished."""
    open_runs: dict[tuple[str, int], list[float]] = {}
    whole: dict[str, list[tuple[float, float]]] = {}
    for event in sorted(events, key=lambda event: event.time):
        run = event.id, event.process
        if event.kind == "start":
            open_runs.setdefault(run, []).append(event.time)
        elif event.kind == "finish" and open_runs.get(run):
            # The last one begun: what this process began before and did not finish was cut off.
            whole.setdefault(event.id, []).append((open_runs[run].pop(), event.time))
    return frozenset(
        id_
        for id_, spans in whole.items()
        if any(later[0] < earlier[1] for earlier, later in pairwise(sorted(spans)))
    )
