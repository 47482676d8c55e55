"""A whole measurement: the columns take turns, round by round, each alone on the machine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker_profiles.comparison.column import Column, Host
from broker_profiles.comparison.load.bench import Bench
from broker_profiles.comparison.load.lengths import MEASURES as LENGTHS
from broker_profiles.comparison.load.lengths import lengths
from broker_profiles.comparison.load.measure import Measured, Round, Size
from broker_profiles.comparison.load.probe import Prober
from broker_profiles.comparison.load.rows import Place, Row, Sample, row_of
from broker_profiles.comparison.marks import ceiling
from broker_profiles.errors import redact
from broker_profiles.profile import CONTRACT, Guarantees, Mode

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is measured: rounds of a size, and queue lengths -> seconds that filling each may take."""

    rounds: int
    size: Size
    lengths: Mapping[int, float]


QUICK = Depth(
    rounds=2,
    size=Size(
        tasks=1_000,
        send_seconds=1.5,
        work_seconds=3.0,
        slow_tasks=200,
        rates=(50.0,),
        rate_seconds=2.0,
        sizes={1_000: 100, 100_000: 30},
    ),
    lengths={1_000: 5.0, 10_000: 8.0},
)

FULL = Depth(
    rounds=5,
    size=Size(
        tasks=2_000,
        send_seconds=1.5,
        work_seconds=3.0,
        slow_tasks=150,
        rates=(10.0, 100.0),
        rate_seconds=2.0,
        sizes={100: 150, 1_000: 150, 10_000: 150, 100_000: 75, 1_000_000: 15},
    ),
    lengths={1_000: 10.0, 100_000: 30.0, 1_000_000: 60.0},
)

DEPTHS: Mapping[str, Depth] = {"quick": QUICK, "full": FULL}


def measure_columns(
    columns: Sequence[Column],
    environ: Mapping[str, str],
    depth: str | Depth,
    say: Say = lambda text: None,
    row_done: Callable[[Row], None] = lambda row: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Measure the columns, `quick` or `full`, and return the rows, those of an interrupted run too.

    `say` gets what is being done; `row_done` each row once it has all its samples. Where `cancelled`
    becomes true it ends soon. A column whose servers cannot be had, or that fails, has fewer rows or
    rows without a value, and the others go on.
    """
    chosen = DEPTHS[depth] if isinstance(depth, str) else depth
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="broker-profiles-load-")))
        run = _Run(chosen, folder, say, row_done, cancelled)
        try:
            hosts = [host for column in columns if (host := run.start(Host(column, environ), closing))]
            run.rounds(hosts)
            run.lengths(hosts)
        except KeyboardInterrupt:
            if not cancelled():
                raise
    return run.rows()


def level(mode: Mode, guarantees: Guarantees) -> str:
    """Return what rows must share to be ranked: the mode, and which promises about tasks it goes without."""
    if mode is Mode.STOCK:
        return str(mode)
    about_tasks = [id_ for id_ in CONTRACT if id_.startswith(("DEL-", "ETA-", "ORD-"))]
    missing = [id_ for id_ in about_tasks if not guarantees.holds(id_)]
    return " without ".join(filter(None, [str(mode), ", ".join(missing)]))


def turns(columns: Sequence[Host], number: int) -> list[Host]:
    """Return the order of a round: each begins with another column, so that none is always the first."""
    first = number % len(columns) if columns else 0
    return [*columns[first:], *columns[:first]]


class _Run:
    """What was measured so far, and how to go on."""

    def __init__(
        self,
        depth: Depth,
        folder: Path,
        say: Say,
        row_done: Callable[[Row], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._depth = depth
        self._folder = folder
        self._say = say
        self._row_done = row_done
        self._cancelled = cancelled
        self._samples: dict[Place, list[Sample]] = {}
        self._visits = 0
        self._ceiling = ceiling(folder)
        self._prober = Prober()

    def rows(self) -> list[Row]:
        """Return the rows of all samples so far."""
        return [row_of(place, samples) for place, samples in self._samples.items()]

    def start(self, host: Host, closing: contextlib.ExitStack) -> Host | None:
        """Start the servers of a column, and let them rest until it is their turn; none for none."""
        self._go_on()
        self._say(f"{host.column.name}: starting")
        closing.callback(host.close)
        try:
            host.start()
            _rest(host)
        except Exception as error:  # the other columns are measured all the same
            self._failed(host, error)
            return None
        return host

    def rounds(self, hosts: Sequence[Host]) -> None:
        """Measure every column once a round."""
        for number in range(self._depth.rounds):
            for host in turns(hosts, number):
                self._say(f"round {number + 1} of {self._depth.rounds}: {host.column.name}")
                self._visit(host, lambda bench: Round(bench, self._depth.size, self._ceiling)())
                if number + 1 == self._depth.rounds:
                    self._done(host, lambda place: place.measure not in LENGTHS)

    def lengths(self, hosts: Sequence[Host]) -> None:
        """Measure every column with long queues, once: filling them is what takes the time."""
        for host in hosts:
            self._say(f"long queues: {host.column.name}")
            self._visit(host, lambda bench: lengths(bench, self._depth.lengths))
            self._done(host, lambda place: place.measure in LENGTHS)

    def _visit(self, host: Host, measure: Callable[[Bench], Iterable[Measured]]) -> None:
        """Wake a column's servers, measure, and let them rest again."""
        self._go_on()
        self._visits += 1
        try:
            host.heal()
            with Bench(host, self._folder / str(self._visits), self._prober, self._cancelled) as bench:
                for measured in measure(bench):
                    self._note(host, measured)
                bench.clean()
        except Exception as error:  # the next round of it is tried all the same
            self._failed(host, error)
        try:
            _rest(host)
        except Exception as error:
            self._failed(host, error)

    def _failed(self, host: Host, error: Exception) -> None:
        self._say(f"{host.column.name}: {type(error).__name__}: {redact(error)}")

    def _note(self, host: Host, measured: Measured) -> None:
        column = host.column
        place = Place(
            column.name, level(column.profile.mode, host.guarantees), measured.measure, measured.parameter
        )
        self._samples.setdefault(place, []).append(measured.sample)

    def _done(self, host: Host, which: Callable[[Place], bool]) -> None:
        for place, samples in self._samples.items():
            if place.column == host.column.name and which(place):
                self._row_done(row_of(place, samples))

    def _go_on(self) -> None:
        if self._cancelled():
            raise KeyboardInterrupt


def _rest(host: Host) -> None:
    """Freeze the servers that are ours, so that they cost the column that is measured nothing."""
    for server in host.servers.values():
        if server.owned and server.state == "running":
            server.pause()
