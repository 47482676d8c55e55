"""Runs cases on columns: columns side by side, the cases of one after the other on its own servers.

Columns take unequally long. Whoever has no column left helps one: it has servers of the same kind started
for itself, and takes that column's cases from their end.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker_profiles.comparison.account import Account, account
from broker_profiles.comparison.column import Column, Host
from broker_profiles.comparison.ledger import Event
from broker_profiles.comparison.pressure import OVERLOAD, Meter
from broker_profiles.comparison.scenario import Case, NotApplicable, Outcome, PromiseBroken, TooLate
from broker_profiles.comparison.servers import FaultRefused, ServerUnavailable
from broker_profiles.comparison.stage import Stage
from broker_profiles.errors import redact
from broker_profiles.profile import Guarantees, Setting

logger = logging.getLogger(__name__)

#: How many cases have to be left of a column for help to be worth its servers' start.
_WORTH_HELP = 8


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one case on one column.

    `seconds` is how long it took; `late`, whether it was right but not in time, or seemed to break a promise
    on an overloaded machine; `alone`, whether it is the repetition, with nothing beside it, of one that was
    late; `logs` the last words of every process of a case that did not end well; `bounds`, in seconds, what
    was promised of a fact.
    """

    column: str
    case: Case
    outcome: Outcome
    detail: str
    seconds: float
    facts: Mapping[str, Any]
    account: Account
    events: Sequence[Event]
    alone: bool = False
    logs: Mapping[str, str] = field(default_factory=dict)
    late: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)


class Cancelled(Exception):
    """The run was told to end."""


def attempt(
    host: Host,
    case: Case,
    folder: Path,
    *,
    alone: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Attempt:
    """Try a case on a column's servers. Raises `Cancelled`; everything else is in the attempt."""
    meter = Meter()
    stage: Stage | None = None
    failure: Exception | None = None
    try:
        host.heal()
        stage = Stage(host, folder, cancelled)
        with stage:
            try:
                case.run(stage)
            except Exception as error:
                failure = error
            stage.ledger.note("the case ends")
    except KeyboardInterrupt:
        raise Cancelled from None
    except Exception as error:
        # What came of the case is not hidden by what went wrong after it, but the servers are not used again.
        failure = failure or error
        if host.owned:
            host.close()
    outcome, detail = _outcome(failure)
    seconds, share = meter.lap()
    # What only looks like a loss on a machine that gets nothing done is not believed at once.
    doubtful = outcome is Outcome.BROKEN and share > OVERLOAD and host.guarantees.holds(case.guarantee)
    events = list(stage.ledger.events()) if stage is not None else []
    bad = outcome in (Outcome.BROKEN, Outcome.ERROR)
    return Attempt(
        column=host.column.name,
        case=case,
        outcome=outcome,
        detail=redact(detail),
        seconds=seconds,
        facts=stage.facts if stage else {},
        account=account(events),
        events=events,
        alone=alone,
        logs=_logs(folder) if bad else {},
        late=isinstance(failure, TooLate) or doubtful,
        bounds=stage.bounds if stage else {},
    )


def _outcome(failure: Exception | None) -> tuple[Outcome, str]:
    if failure is None:
        return Outcome.KEPT, ""
    if isinstance(failure, PromiseBroken):
        return Outcome.BROKEN, str(failure)
    if isinstance(failure, NotApplicable | FaultRefused):
        return Outcome.NOT_APPLICABLE, str(failure)
    return Outcome.ERROR, _where(failure)


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def _logs(folder: Path) -> dict[str, str]:
    return {
        path.stem: redact(path.read_text(errors="replace"))[-3000:] for path in sorted(folder.glob("*.log"))
    }


class Run:
    """A whole run: every case on every column, as many columns at once as `jobs`.

    `done` is called for each attempt, from several threads but one at a time, and `began` when a case
    begins. After `stop()` no case begins and those that run end soon.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        cases: Sequence[Case],
        *,
        jobs: int,
        environ: Mapping[str, str],
        began: Callable[[Column, Case], None] = lambda column, case: None,
        done: Callable[[Attempt], None] = lambda attempt: None,
    ) -> None:
        self.columns = columns
        self.cases = cases
        self.attempts: list[Attempt] = []
        #: Column -> what its servers say they are; or why they could not be had.
        self.servers: dict[str, list[dict[str, str]]] = {}
        self.unavailable: dict[str, str] = {}
        #: Column -> what its profile promises with the servers that it had.
        self.guarantees: dict[str, Guarantees] = {}
        #: Column -> the Celery settings of its processes, with the addresses they used.
        self.settings: dict[str, list[Setting]] = {}
        self._jobs = jobs
        self._environ = environ
        self._began = began
        self._done = done
        #: Column -> its cases that nobody has taken, each with its number.
        self._left = {column.name: deque(enumerate(cases)) for column in columns}
        #: The columns whose servers were started here: of those there may be more, for help.
        self._owned: dict[str, Column] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End soon, with what there is."""
        self._stopping.set()

    def __call__(self) -> list[Attempt]:
        """Run, and return the attempt that counts of each cell; what was late is tried again alone."""
        with _folder() as folder, ThreadPoolExecutor(self._jobs) as lanes:
            waiting: set[Future[None]] = {
                lanes.submit(self._lane, column, folder / f"c{number}")
                for number, column in enumerate(self.columns)
            }
            waiting |= {lanes.submit(self._help, folder / f"h{number}") for number in range(self._jobs)}
            self._wait(waiting)
            self._again(folder / "alone")
        return self.attempts

    def _wait(self, waiting: set[Future[None]]) -> None:
        # In slices, so that Ctrl-C in the main thread is heard at once.
        while waiting:
            try:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                self.stop()
                continue
            for future in finished:
                future.result()

    def _lane(self, column: Column, folder: Path) -> None:
        left = self._left[column.name]
        try:
            self._cases_of(column, folder, left, left.popleft)
        except ServerUnavailable as error:
            self.unavailable[column.name] = redact(error)
        except Cancelled:
            return
        except Exception as error:  # the other columns go on, and the report says why this one is short
            self.unavailable[column.name] = redact(f"the suite failed: {_where(error)}")

    def _help(self, folder: Path) -> None:
        """Take cases of the columns that have most of them left, until none needs help."""
        while column := self._longest():
            left = self._left[column.name]
            try:
                self._cases_of(column, folder / column.name.replace("/", "-"), left, left.pop)
            except Cancelled:
                return
            except Exception as error:  # its own lane goes on with the rest
                logger.warning("nobody helps %s: %s", column.name, redact(_where(error)))
                with self._lock:
                    self._owned.pop(column.name, None)

    def _longest(self) -> Column | None:
        with self._lock:
            columns = list(self._owned.values())
        column = max(columns, key=lambda each: len(self._left[each.name]), default=None)
        return column if column and len(self._left[column.name]) >= _WORTH_HELP else None

    def _cases_of(
        self,
        column: Column,
        folder: Path,
        left: deque[tuple[int, Case]],
        take: Callable[[], tuple[int, Case]],
        alone: bool = False,
    ) -> None:
        host = Host(column, self._environ)
        try:
            while left:
                if self._stopping.is_set():
                    raise Cancelled
                if not host.started:
                    host.start()
                    self._describe(host)
                try:
                    number, case = take()
                except IndexError:  # somebody else took the last one
                    break
                self._began(column, case)
                found = attempt(
                    host, case, folder / str(number), alone=alone, cancelled=self._stopping.is_set
                )
                self._note(found)
                # After an error nobody knows what state the servers are in.
                if host.owned and (case.fresh or found.outcome is Outcome.ERROR):
                    host.close()
        finally:
            host.close()

    def _describe(self, host: Host) -> None:
        name = host.column.name
        with self._lock:
            self.servers[name] = host.describe()
            self.settings[name] = host.settings()
            self.guarantees[name] = host.guarantees
            if host.owned:
                self._owned[name] = host.column

    def _note(self, found: Attempt) -> None:
        with self._lock:
            self.attempts.append(found)
            self._done(found)

    def _again(self, folder: Path) -> None:
        """Try again, with nothing beside it, what was right but late while others ran."""
        for number, column in enumerate(self.columns):
            late = [found for found in self.attempts if found.late and found.column == column.name]
            if column.baseline:
                # It promises nothing, and its calls hang until they are ended: only what a cell depends on.
                late = [found for found in late if not self._broken_anyway(found)]
            if late and self._jobs > 1 and len(self.columns) > 1:
                self._lane_alone(column, folder / str(number), late)

    def _broken_anyway(self, late: Attempt) -> bool:
        """Return whether a case that was not late has broken the same promise."""
        cell = late.column, late.case.guarantee
        return any(
            found.outcome is Outcome.BROKEN and not found.late
            for found in self.attempts
            if (found.column, found.case.guarantee) == cell
        )

    def _lane_alone(self, column: Column, folder: Path, late: Sequence[Attempt]) -> None:
        before = len(self.attempts)
        try:
            left = deque(enumerate(found.case for found in late))
            self._cases_of(column, folder, left, left.popleft, alone=True)
        except Cancelled:
            pass  # what was late stays late
        except Exception as error:  # it does so here too, and the other columns go on
            logger.warning("%s could not be tried again: %s", column.name, redact(_where(error)))
        second = {found.case.id: found for found in self.attempts[before:]}
        for first in late:
            if again := second.get(first.case.id):
                self.attempts.remove(first)
                # What was seen is not hidden by what is seen later.
                self.attempts[self.attempts.index(again)] = replace(
                    again, facts={**again.facts, "seen with others beside it": first.detail}
                )


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="broker-profiles-compare-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
