"""`compare`: start each broker, break things, and say which promises hold."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from broker_profiles.cli import output
from broker_profiles.cli.listing import condensed
from broker_profiles.cli.progress import Progress
from broker_profiles.comparison.matrix import Standing
from broker_profiles.comparison.scenario import Outcome
from broker_profiles.errors import BrokerProfilesError, ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from broker_profiles.comparison.column import Column
    from broker_profiles.comparison.load import Row
    from broker_profiles.comparison.run import Run
    from broker_profiles.comparison.scenario import Case

#: Exit status of a run that Ctrl-C ended, as shells have it.
_INTERRUPTED = 130


#: How the widths of the columns of the summary relate.
_SHARES: dict[str, Any] = {"holds": 3, "broken": 3, "not offered": 2, "else": 3}


class UnknownScenario(ConfigurationError):
    """Unknown scenario {name!r}.{hint} Name a promise (DEL-1), a family (DEL) or a case (DEL-1/...)."""


class NothingToWriteTo(ConfigurationError):
    """Cannot write the report to {folder!r}: {problem}. Name another folder with --out."""


class BrokenPromises(BrokerProfilesError):
    """{count} broken or failed: {cells}"""


class NewlyBroken(BrokerProfilesError):
    """Since {against!r} {count} newly broken: {cells}"""


class NothingToCompareWith(ConfigurationError):
    """`compare` needs the Python package {module!r}: pip install 'broker-profiles[compare]'."""


class NotTried(BrokerProfilesError):
    """Not tried, for lack of a server: {columns}"""


def _require_packages() -> None:
    """Raise `NothingToCompareWith` unless what the suite itself needs can be imported."""
    for module in ("psutil", "jinja2", "pygal"):
        if importlib.util.find_spec(module) is None:
            raise NothingToCompareWith(module=module)


def _words(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


@click.command()
@click.option(
    "--profiles",
    multiple=True,
    callback=_words,
    show_envvar=True,
    help="Columns, PROFILE[@IMAGE], several with commas.  [default: all brokers and baselines]",
)
@click.option(
    "--scenarios",
    multiple=True,
    callback=_words,
    show_envvar=True,
    help="Promises, families or cases: DEL-1, ETA, RES-2/chord.  [default: all]",
)
@click.option("--quick", is_flag=True, show_envvar=True, help="The main cases on the main profiles.")
@click.option("--load", type=click.Choice(["quick", "full"]), show_envvar=True, help="Measure speed too.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("comparison"),
    show_default=True,
    show_envvar=True,
    help="Where the report goes: index.html, results.json, junit.xml, comparison.md.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    show_envvar=True,
    help="Show what changed since this results.json; fail where a promise is newly broken.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 32),
    default=lambda: 4 * (os.cpu_count() or 1),
    show_default="four a CPU, for they mostly wait",
    show_envvar=True,
    help="Cases side by side, each of another column while there are columns left.",
)
@output.json_option
def compare(
    profiles: list[str],
    scenarios: list[str],
    quick: bool,
    load: str | None,
    out: Path,
    against: Path | None,
    jobs: int,
    json: bool,
) -> None:
    """Prove or disprove every promise, on every broker, with Celery's defaults beside it.

    Servers: those that REDIS_URL and its like name (used under names of our own, and never harmed), else
    containers, else native processes. Ctrl-C ends the run with a partial report.

    Exit status 0: every declared promise that was tried holds; 1: one is broken, or the suite failed; 2:
    wrong usage; 130: interrupted.
    """
    _require_packages()
    from broker_profiles.comparison import report
    from broker_profiles.comparison.run import Run

    earlier = report.load(against) if against else None
    columns, cases = _columns(profiles, quick), _cases(scenarios, quick)
    _writable(out)
    progress = Progress(len(columns) * len(cases))
    run = Run(columns, cases, jobs=jobs, environ=os.environ, began=progress.began, done=progress.done)
    with progress, _stopped_by_signals(run, progress) as stopped:
        document = _tried(run, load, out, progress, stopped)
    if json:
        output.print_json(document)
    else:
        _print(document, out)
    try:
        _conclude(document, earlier, against, say=not json)
    except BrokerProfilesError as error:
        if not stopped.is_set():
            raise
        output.print_line(f"Error: {error}")
    if stopped.is_set():
        click.get_current_context().exit(_INTERRUPTED)


def _tried(
    run: Run, load: str | None, out: Path, progress: Progress, stopped: threading.Event
) -> dict[str, Any]:
    """Run, measure, and write the report; return its document."""
    from broker_profiles.comparison import report
    from broker_profiles.comparison.load import ranking

    started = datetime.now(UTC)

    def written(rows: Sequence[Row], *, complete: bool) -> dict[str, Any]:
        document = report.document(
            run,
            started=started,
            finished=datetime.now(UTC),
            complete=complete,
            load=[row.as_json() for row in rows],
            ranking=ranking(rows),
        )
        report.write(document, out)
        return document

    run()
    rows: list[Row] = []
    if load and not stopped.is_set():
        # Whatever happens to the measurements, what was proved is there.
        written(rows, complete=False)
        rows = _measure(run, load, progress, stopped)
    return written(rows, complete=not stopped.is_set())


def _columns(names: Sequence[str], quick: bool) -> list[Column]:
    from broker_profiles.comparison.column import FULL, QUICK, parse

    chosen = dict.fromkeys(names or (QUICK if quick else FULL))
    return [parse(name) for name in chosen]


def _cases(names: Sequence[str], quick: bool) -> list[Case]:
    from broker_profiles.comparison.scenario import all_cases, select

    known = [case for case in all_cases() if case.quick or not quick]
    try:
        return select(known, names)
    except LookupError as error:
        name = str(error.args[0])
        every = {word for case in known for word in (case.id, case.guarantee, case.guarantee.split("-")[0])}
        raise UnknownScenario(name=name, hint=did_you_mean(name, sorted(every))) from None


def _writable(folder: Path) -> None:
    """Find out before an hour's work whether its report can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise NothingToWriteTo(folder=str(folder), problem=error.strerror) from None


def _measure(run: Run, depth: str, progress: Progress, stopped: threading.Event) -> list[Row]:
    from broker_profiles.comparison.load import measure_columns

    available = [column for column in run.columns if column.name not in run.unavailable]
    return measure_columns(available, os.environ, depth, say=progress.say, cancelled=stopped.is_set)


@contextmanager
def _stopped_by_signals(run: Run, progress: Progress) -> Iterator[threading.Event]:
    """Let Ctrl-C, SIGTERM and a closed terminal end the run in order; the event says whether one came."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not stopped.is_set():
            progress.say("ending: what was started here is stopped, and a partial report written")
        stopped.set()
        run.stop()

    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- what is printed ----------------------------------------------------------------------------------


def _print(document: dict[str, Any], out: Path) -> None:
    table = output.table("Profile", "Holds", "Broken", "Not offered", "Else", **_SHARES)
    for column in document["columns"]:
        by_standing = _by_standing(document, column["name"])
        kept = by_standing.pop("holds", []) + by_standing.pop("kept", [])
        broken = by_standing.pop("broken promise", []) + by_standing.pop("broken", [])
        rest = [condensed(by_standing.pop("not offered", []))]
        others = [f"{standing}: {condensed(ids)}" for standing, ids in by_standing.items()]
        if column["unavailable"]:
            others.append(f"no server: {column['unavailable']}")
        table.add_row(
            *output.cells(column["name"], condensed(kept), condensed(broken), *rest, "; ".join(others))
        )
    output.console().print(table)
    for cell in _failed(document):
        for case in cell["cases"]:
            if case["outcome"] in (Outcome.BROKEN, Outcome.ERROR):
                output.print_line(f"{cell['column']} {case['id']} {case['outcome']}: {case['detail']}")
    output.print_line(f"The report: {out / 'index.html'}")


def _by_standing(document: dict[str, Any], column: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in document["cells"]:
        if cell["column"] == column:
            found.setdefault(cell["standing"], []).append(cell["promise"])
    return found


def _failed(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in document["cells"] if Standing(cell["standing"]).fails]


def _conclude(document: dict[str, Any], earlier: Any, against: Path | None, *, say: bool) -> None:
    from broker_profiles.comparison import report

    if earlier is not None:
        changes = report.changes(earlier, document)
        for change in changes:
            if say:
                output.print_line(str(change))
        newly = [change for change in changes if change.newly_broken]
        if newly:
            raise NewlyBroken(against=str(against), count=len(newly), cells=", ".join(map(str, newly)))
    failed = _failed(document)
    if failed:
        cells = ", ".join(f"{cell['promise']} on {cell['column']}" for cell in failed)
        raise BrokenPromises(count=len(failed), cells=cells)
    if any(column["unavailable"] for column in document["columns"]):
        names = [column["name"] for column in document["columns"] if column["unavailable"]]
        raise NotTried(columns=", ".join(names))
