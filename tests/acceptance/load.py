"""Three hundred tasks of every kind, and what has to come of each, by its id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from celery import Celery, chain, chord, group

from tests.acceptance.tasks import tasks_of


@dataclass
class Sent:
    """What was sent: id -> (state, result) to expect, and how often each id has to run."""

    expected: dict[str, tuple[str, Any]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)

    def note(self, result: Any, value: Any, state: str = "SUCCESS", runs: int = 1) -> None:
        self.expected[result.id] = (state, value)
        self.runs[result.id] = runs
        self.results.append(result)


def send(app: Celery, *, chords: bool) -> Sent:
    """Send 300 tasks (270 where chords are not possible)."""
    task = tasks_of(app)
    add, total = task["add"], task["total"]
    sent = Sent()
    for number in range(110):
        sent.note(add.delay(number, 1), number + 1)
    for number in range(30):
        sent.note(task["fail"].delay(f"no {number}"), f"no {number}", "FAILURE")
        sent.note(task["retry_twice"].delay(number), number, runs=3)
        sent.note(add.apply_async((number, 2), countdown=0.5 + number % 3 / 2), number + 2)
        sent.note(add.apply_async((number, 3), priority=number % 10), number + 3)
    grouped = group(add.s(number, 4) for number in range(20)).apply_async()
    for number, result in enumerate(grouped.results):
        sent.note(result, number + 4)
    for number in range(5):
        _send_chain(sent, add, number)
        if chords:
            _send_chord(sent, add, total, number)
    return sent


def _send_chain(sent: Sent, add: Any, start: int) -> None:
    last = chain(add.s(start, 1), add.s(1), add.s(1), add.s(1)).apply_async()
    value = start + 4
    while last is not None:
        sent.note(last, value)
        last, value = last.parent, value - 1


def _send_chord(sent: Sent, add: Any, total: Any, start: int) -> None:
    body = chord([add.s(start, part) for part in range(5)], total.s()).apply_async()
    sent.note(body, 5 * start + 10)
    for part, result in enumerate(body.parent.results):
        sent.note(result, start + part)
