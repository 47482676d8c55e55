"""The progress of a comparison: a bar on a terminal, one plain line a case elsewhere."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from broker_profiles.cli import output

if TYPE_CHECKING:
    from broker_profiles.comparison.column import Column
    from broker_profiles.comparison.run import Attempt
    from broker_profiles.comparison.scenario import Case


class Progress:
    """Shows what runs and what came of it, on standard error. Its methods may be called from any thread."""

    def __init__(self, total: int) -> None:
        self._console = output.console(stderr=True)
        #: What runs, in the order in which it began; two cases of one column may.
        self._running: dict[str, None] = {}
        self._lock = threading.Lock()
        self._total = total
        self._count = 0
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("starting", total=total)

    def began(self, column: Column, case: Case) -> None:
        """Show that a case runs."""
        with self._lock:
            self._running[f"{column.name} {case.id}"] = None
            self._bar.update(self._task, description=", ".join(self._running))

    def done(self, attempt: Attempt) -> None:
        """Show what came of a case."""
        with self._lock:
            self._running.pop(f"{attempt.column} {attempt.case.id}", None)
            self._count += 1
            self._bar.update(self._task, completed=self._count)
            alone = ", alone" if attempt.alone else ""
            number = f"{self._count}/{self._total}" if self._count <= self._total else "again"
            self._print(
                f"[{number}] {attempt.column} {attempt.case.id}: {attempt.outcome} "
                f"({attempt.seconds:.0f} s{alone}) {attempt.detail}"
            )

    def say(self, text: str) -> None:
        """Show any other line."""
        with self._lock:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
