"""Forks beside threads that open, close and forget connections to one SQLite file, in their own process.

`python -m tests.unit.forks_alone FILE [FORKS]` prints one line of JSON: how many children were forked, how
many of them `hung` in their first write or read, `inherited` an open connection or `failed`, and how many
rows that were committed are `lost`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from broker_profiles.transports.sqlite_file import SQLiteFile

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number TEXT)"

#: Seconds until a child that neither ends nor fails is killed. It waits for others for longer.
_LIMIT, _PATIENCE = 20, 60.0

_FINE, _INHERITED, _FAILED = range(3)


def main(path: str, forks: int) -> dict[str, int]:
    """Fork while the threads are at it; return what became of the children and of what was written."""
    file = SQLiteFile(path, SCHEMA, timeout=_PATIENCE, synchronous="OFF")
    ended = threading.Event()
    committed: list[str] = []
    threads = [
        threading.Thread(target=_open_again_and_again, args=(file, end, ended, committed))
        for end in (SQLiteFile.close, _forget, _forget_in_a_cycle)
    ]
    for thread in threads:
        thread.start()
    children: dict[int, int] = {}
    for number in range(forks):
        _write(file, f"parent {number}", committed)
        child = os.fork()
        if not child:
            _be_child(file, number)
        children[child] = number
    ended.set()
    for thread in threads:
        thread.join()
    found = dict.fromkeys(("forked", "hung", "inherited", "failed", "lost"), 0) | {"forked": forks}
    for child, number in children.items():
        status = os.waitpid(child, 0)[1]
        found["hung"] += os.WIFSIGNALED(status)
        code = os.waitstatus_to_exitcode(status)
        found["inherited"] += code == _INHERITED
        found["failed"] += code == _FAILED
        if code in (_FINE, _INHERITED):
            committed.append(f"child {number}")
    file.close()
    found["lost"] = len(set(committed) - _rows(path))
    return found


def _open_again_and_again(
    file: SQLiteFile, end: Callable[[SQLiteFile], None], ended: threading.Event, committed: list[str]
) -> None:
    number = 0
    while not ended.is_set():
        twin = file.twin()
        _write(twin, f"{end.__name__} {number}", committed)
        end(twin)
        number += 1


def _forget(file: SQLiteFile) -> None:
    """Leave a file open; it goes when the next one takes its place."""


def _forget_in_a_cycle(file: SQLiteFile) -> None:
    """Leave a file open, to the garbage collector, which runs here for those before it."""
    cycle: list[Any] = [file]
    cycle.append(cycle)
    gc.collect(0)


def _write(file: SQLiteFile, text: str, committed: list[str]) -> None:
    file.write("INSERT INTO numbers VALUES (?)", (text,))
    committed.append(text)


def _be_child(file: SQLiteFile, number: int) -> None:
    """Write a row and read it back; never return."""
    signal.alarm(_LIMIT)
    code = _FAILED
    try:
        inherited = _is_open(file.path)
        _write(file, f"child {number}", [])
        if file.read("SELECT count(*) FROM numbers WHERE number = ?", (f"child {number}",)) == [(1,)]:
            code = _INHERITED if inherited else _FINE
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _is_open(path: str) -> bool:
    """Return whether this process has the file, or one that SQLite keeps beside it, open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if str(descriptor.readlink()).startswith(path):
                return True
        except FileNotFoundError:  # of the listing itself
            continue
    return False


def _rows(path: str) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {text for (text,) in connection.execute("SELECT number FROM numbers")}


if __name__ == "__main__":
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # of Python 3.12: there are threads at a fork, on purpose
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 1000)))
