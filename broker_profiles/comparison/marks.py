"""The ledger of a measurement: one short line a run of a task, for a whole event would weigh on the result.

A line is `ID TIME`, written with one write when the task has finished; the time is that of its start, in
seconds of the system's monotonic clock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from broker_profiles.comparison.account import account
from broker_profiles.comparison.ledger import Event, NewLines, OwnFile

_SUFFIX = ".marks"

_CEILING_MARKS = 20_000


class Marker:
    """One process's file of marks, in a ledger's folder; a forked child has a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._file = OwnFile(folder, _SUFFIX)

    def mark(self, id_: str, started: float) -> None:
        """Write down that a task which started at this time has finished. Raises `OSError`."""
        self._file.append(b"%b %.6f\n" % (id_.encode(), started))


class Marks:
    """The reader's side: every run so far, by task id."""

    def __init__(self, folder: Path) -> None:
        self._lines = NewLines(folder, _SUFFIX)
        #: Task id -> the starts of its finished runs.
        self.runs: dict[str, list[float]] = {}

    def update(self) -> None:
        """Read what is new."""
        for line in self._lines:
            id_, _, started = line.decode().partition(" ")
            self.runs.setdefault(id_, []).append(float(started))

    def starts(self, ids: Iterable[str]) -> dict[str, float]:
        """Return id -> its first start, of those of these ids that have run."""
        return {id_: min(self.runs[id_]) for id_ in ids if id_ in self.runs}


def verdict(ids: Collection[str], runs: Mapping[str, list[float]]) -> dict[str, int]:
    """Return how many of the tasks that were sent were lost, and how many ran more than once."""
    events = [Event("sent", id_, 0.0, 0) for id_ in ids]
    for id_ in ids:
        for started in sorted(runs.get(id_, ())):
            events += [Event("start", id_, started, 0), Event("finish", id_, started, 0)]
    found = account(events)
    return {"sent": len(found.sent), "lost": len(found.lost), "duplicated": len(found.duplicated)}


def ceiling(folder: Path) -> float:
    """Return how many marks one process writes a second: what no measurement can exceed."""
    marker = Marker(folder)
    ids = [secrets.token_hex(18) for _ in range(_CEILING_MARKS)]
    began = time.perf_counter()
    for id_ in ids:
        marker.mark(id_, time.monotonic())
    return _CEILING_MARKS / (time.perf_counter() - began)
