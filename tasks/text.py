"""Counting lines, words and definitions of text files, as a map-reduce.

`map_reduce(paths)` cuts the files into batches, counts each batch in a task of its own and merges what
they return in a last one. Every task only reads files and returns numbers, so running one twice does no
harm. The workers have to see the files under the same paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from celery import chord
from celery.canvas import Signature

from tasks.app import app

#: Files a task counts: enough to make the work worth the message, few enough to share it out evenly.
BATCH = 4

#: How many of the largest files are kept on the way to the result.
LARGEST = 10

#: Files between two reports of `count_tree`: a report is a write to the result store.
_REPORT_EVERY = 25

_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+\w", re.MULTILINE)


class FileCounts(TypedDict):
    """What is in one file."""

    path: str
    lines: int
    words: int
    definitions: int


class Counts(TypedDict):
    """What is in several files, and which of them are the largest by lines."""

    files: int
    lines: int
    words: int
    definitions: int
    largest: list[FileCounts]


# -- counting, without Celery -------------------------------------------------------------------------


def count_text(path: str, text: str) -> FileCounts:
    """Count one text; definitions are lines that begin with `def`, `async def` or `class`."""
    lines = text.count("\n") + (not text.endswith("\n") and bool(text))
    definitions = sum(1 for _ in _DEFINITION.finditer(text))
    return {"path": path, "lines": lines, "words": len(text.split()), "definitions": definitions}


def add_up(files: Iterable[FileCounts]) -> Counts:
    """Add up the counts of files."""
    found = list(files)
    return {
        "files": len(found),
        "lines": sum(file["lines"] for file in found),
        "words": sum(file["words"] for file in found),
        "definitions": sum(file["definitions"] for file in found),
        "largest": _largest(found),
    }


def merge(parts: Iterable[Counts]) -> Counts:
    """Add up counts; in which order they come makes no difference."""
    found = list(parts)
    return {
        "files": sum(part["files"] for part in found),
        "lines": sum(part["lines"] for part in found),
        "words": sum(part["words"] for part in found),
        "definitions": sum(part["definitions"] for part in found),
        "largest": _largest(file for part in found for file in part["largest"]),
    }


def python_files(folder: str) -> list[str]:
    """Return the Python files below a folder in a fixed order, without installed packages."""
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    found = (path for path in Path(folder).rglob("*.py") if skipped.isdisjoint(path.parts))
    return sorted(str(path) for path in found if path.is_file())


def _largest(files: Iterable[FileCounts]) -> list[FileCounts]:
    return sorted(files, key=lambda file: (-file["lines"], file["path"]))[:LARGEST]


def _count_path(path: str) -> FileCounts:
    # Test files hold every encoding there is; a character that cannot be read is still one of a word.
    return count_text(path, Path(path).read_bytes().decode("utf-8", errors="replace"))


# -- tasks --------------------------------------------------------------------------------------------


@app.task(name="tasks.count_file")
def count_file(path: str) -> FileCounts:
    """Count one file. Raises `OSError` where it cannot be read."""
    return _count_path(path)


@app.task(name="tasks.count_files")
def count_files(paths: list[str]) -> Counts:
    """Count a batch of files and add them up."""
    return add_up(map(_count_path, paths))


@app.task(name="tasks.merge_counts")
def merge_counts(parts: list[Counts]) -> Counts:
    """Add up what the tasks of the map returned."""
    return merge(parts)


@app.task(name="tasks.count_tree", bind=True)
def count_tree(self: Any, folder: str) -> Counts:
    """Count the Python files below a folder in one task that reports how far it is.

    While it runs its state is `PROGRESS` with `{"current": files counted, "total": files}`.
    """
    paths = python_files(folder)
    counted: list[FileCounts] = []
    for number, path in enumerate(paths):
        if number % _REPORT_EVERY == 0:
            self.update_state(state="PROGRESS", meta={"current": number, "total": len(paths)})
        counted.append(_count_path(path))
    return add_up(counted)


# -- the map-reduce -----------------------------------------------------------------------------------


def batches(paths: Sequence[str], size: int = BATCH) -> list[Signature]:
    """Return the tasks of the map: one for each `size` files. Raises `ValueError` without files."""
    if not paths:
        raise ValueError("there are no files to count")
    return [count_files.s(list(paths[start : start + size])) for start in range(0, len(paths), size)]


def map_reduce(paths: Sequence[str], size: int = BATCH) -> Signature:
    """Return the chord that counts all files: send it with `.delay()`, its result is a `Counts`."""
    return chord(batches(paths, size), merge_counts.s())
