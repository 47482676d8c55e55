"""Threads of one process at a SQLite file that another process keeps locked."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from broker_profiles.errors import StoreBusy
from broker_profiles.transports.sqlite_file import SQLiteFile

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
