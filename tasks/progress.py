"""Waiting for a result with a progress bar: for a chord, a group, or a task that reports `PROGRESS`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery.exceptions import TimeoutError as NoResult
from celery.result import AsyncResult, ResultSet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Show = Callable[[int, int], None]

#: Seconds between two looks.
_LOOK_EVERY = 0.1

#: Where there is no terminal, a line is printed each time this part of the work is done.
_LINE_EVERY = 0.25


def follow(
    result: AsyncResult | ResultSet, title: str, *, timeout: float, console: Console | None = None
) -> Any:
    """Show how far a result is until it is there, and return it.

    A bar on a terminal, a few plain lines elsewhere, both on standard error unless a console is given.
    Raises what the task raised, and Celery's `TimeoutError` after `timeout` seconds.
    """
    with _display(title, console or Console(stderr=True)) as show:
        if isinstance(result, ResultSet):
            return _collect(result, show, timeout)
        if isinstance(result.parent, ResultSet):
            _collect(result.parent, show, timeout)
        else:
            _watch(result, show, time.monotonic() + timeout)
    return result.get(timeout=timeout)


# -- how far it is ------------------------------------------------------------------------------------


def _collect(results: ResultSet, show: Show, timeout: float) -> list[Any]:
    """Take the results of a group as they come; return them in the order of its tasks."""
    values: dict[str, Any] = {}

    def take(task_id: str, value: Any) -> None:
        values[task_id] = value
        show(len(values), len(results))

    # Waited for rather than looked at: results over rpc only come to who waits.
    results.get(timeout=timeout, callback=take)
    return [values[result.id] for result in results]


def _watch(result: AsyncResult, show: Show, deadline: float) -> None:
    """Look again and again at what one task reports of itself until it is ready."""
    done = total = 0
    while not result.ready():
        done, total = _reported(result, done, total)
        show(done, total)
        if time.monotonic() >= deadline:
            raise NoResult(f"no result yet, {done} of {total or 'an unknown number'} parts are done")
        time.sleep(_LOOK_EVERY)
    show(total, total)


def _reported(result: AsyncResult, done: int, total: int) -> tuple[int, int]:
    """Return what a task has reported of itself, or what was known before."""
    state, info = result.state, result.info
    if state == "PROGRESS" and isinstance(info, dict):
        return int(info["current"]), int(info["total"])
    return done, total


# -- showing it ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _display(title: str, console: Console) -> Iterator[Show]:
    """Yield a function that shows how many parts of how many are done; 0 for a number nobody knows yet."""
    if not console.is_terminal:
        yield _lines(title, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total or None)


def _lines(title: str, console: Console) -> Show:
    shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if total and done / total >= shown + _LINE_EVERY:
            shown = done / total
            console.print(f"{title}: {done} of {total}", highlight=False)

    return show
