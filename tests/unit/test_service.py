"""A broker as a scenario sees it: a file, and a server of ours or of somebody else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker_profiles.comparison.servers import FaultRefused
from broker_profiles.comparison.service import FileService, NetworkService


class Nobody:
    """Surroundings without a process."""

    processes: Iterable[int] = ()

    def fault(self, text: str) -> None: ...


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "broker", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        yield connection


def test_the_rows_of_every_table_are_counted(tmp_path: Path, file: sqlite3.Connection) -> None:
    service = FileService(tmp_path / "broker", Nobody())
    assert service.stored() == 0
    file.execute('CREATE TABLE "two words" (id INTEGER)')
    file.execute("CREATE TABLE other (id INTEGER)")
    file.execute("CREATE INDEX by_id ON other (id)")
    file.execute("CREATE VIEW again AS SELECT * FROM other")
    file.executemany("INSERT INTO other VALUES (?)", [(number,) for number in range(30)])
    file.execute('INSERT INTO "two words" VALUES (1)')
    assert service.stored() == 31
    file.execute("DELETE FROM other WHERE id < 10")
    assert service.stored() == 21
    file.execute("BEGIN IMMEDIATE")
    file.execute("DELETE FROM other")
    assert service.stored() == 21, "what another had not committed was counted"
    file.execute("ROLLBACK")


class Timeline:
    """Surroundings that keep what is written down, and what a server was asked, in order."""

    processes: Iterable[int] = ()

    def __init__(self) -> None:
        self.lines: list[str] = []

    def fault(self, text: str) -> None:
        self.lines.append(text)


class Recorded:
    """A server, or a link before one, that notes what is done to it; a foreign one refuses."""

    def __init__(self, timeline: Timeline, *, owned: bool) -> None:
        self._timeline, self.owned = timeline, owned

    def __getattr__(self, name: str) -> Any:
        def act() -> None:
            if not self.owned:
                raise FaultRefused(f"cannot {name}: it was not started here")
            self._timeline.lines.append(f"({name})")

        return act


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        ("kill", ["broker SIGKILL", "(kill)", "(cut)"]),
        ("stop", ["broker stopped", "(stop)", "(cut)"]),
        ("freeze", ["broker frozen", "(pause)"]),
    ],
)
def test_a_fault_is_noted_before_it_happens_and_not_where_it_is_refused(fault: str, lines: list[str]) -> None:
    """Times are measured from the note; a kill that never was must not be in the timeline."""
    for owned in (True, False):
        timeline = Timeline()
        server: Any = Recorded(timeline, owned=owned)
        link: Any = Recorded(timeline, owned=True)
        service = NetworkService(server, link, timeline)
        if owned:
            getattr(service, fault)()
            assert timeline.lines == lines
        else:
            with pytest.raises(FaultRefused, match="not started here"):
                getattr(service, fault)()
            assert timeline.lines == []
