"""Threads of one process at a SQLite file: one that another process keeps locked, and beside forks."""

from __future__ import annotations

import gc
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from broker_profiles.errors import StoreBusy
from broker_profiles.transports import sqlite_file
from broker_profiles.transports.sqlite_file import SQLiteFile
from tests.waiting import until

TIMEOUT = 0.5

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def file(path: Path) -> Iterator[SQLiteFile]:
    file = SQLiteFile(str(path), SCHEMA, timeout=TIMEOUT, synchronous="OFF")
    yield file
    file.close()


def write(file: SQLiteFile) -> float:
    """Write to a locked file; return how long that took to fail, in seconds."""
    began = time.monotonic()
    with pytest.raises(StoreBusy), file.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
    return time.monotonic() - began


@pytest.mark.parametrize("opened", [True, False], ids=["with a connection", "without"])
def test_no_thread_waits_longer_for_the_file_because_others_wait_too(
    opened: bool, file: SQLiteFile, path: Path
) -> None:
    assert file.read("SELECT * FROM numbers") == []
    if not opened:
        file.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(4) as threads:
        other.execute("BEGIN EXCLUSIVE")
        took = list(threads.map(write, [file] * 4))
        other.execute("ROLLBACK")
    assert max(took) < 1.5 * TIMEOUT
    assert file.write("INSERT INTO numbers VALUES (2)", ()) == 1


def test_nor_because_others_open_it(file: SQLiteFile, path: Path) -> None:
    assert file.read("SELECT * FROM numbers") == []
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(4) as threads:
        other.execute("BEGIN EXCLUSIVE")
        took = list(threads.map(open_and_write, [file] * 4))
        other.execute("ROLLBACK")
    assert max(took) < 1.5 * TIMEOUT


def open_and_write(file: SQLiteFile) -> float:
    """Write as `write` does over a connection of its own."""
    began = time.monotonic()
    twin = file.twin()
    write(twin)
    twin.close()
    return time.monotonic() - began


def test_closing_does_not_wait_for_who_opens_it(file: SQLiteFile, path: Path) -> None:
    assert file.read("SELECT * FROM numbers") == []
    patient = SQLiteFile(str(path), SCHEMA, timeout=60.0, synchronous="OFF")
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN EXCLUSIVE")
        opening = threads.submit(patient.read, "SELECT * FROM numbers")
        until(somebody_is_inside, 30, "the file being opened")
        file.close()
        still_opening = not opening.done()
        other.execute("ROLLBACK")
    assert still_opening
    assert opening.result() == []
    patient.close()


def somebody_is_inside() -> bool:
    free = sqlite_file._inside.acquire(blocking=False)
    if free:
        sqlite_file._inside.release()
    return not free


def test_a_file_that_is_forgotten_is_closed(path: Path) -> None:
    file = SQLiteFile(str(path), SCHEMA, timeout=TIMEOUT, synchronous="OFF")
    assert file.read("SELECT * FROM numbers") == []
    log = path.with_name(f"{path.name}-wal")  # the last connection that is closed removes it
    assert log.exists()
    del file
    gc.collect()
    assert not log.exists()


def test_a_forked_child_works_and_inherits_nothing_whatever_other_threads_close_and_forget(
    path: Path,
) -> None:
    command = (sys.executable, "-m", "tests.unit.forks_alone", str(path), "100")
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(run.stdout) == {"forked": 100, "hung": 0, "inherited": 0, "failed": 0, "lost": 0}
