"""Counting files with a plain loop: what the workers' totals are checked against.

Written without a look at the tasks, for a check that shares their code would share their mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Totals(NamedTuple):
    """What is in a number of files."""

    files: int
    lines: int
    words: int
    definitions: int


def count_plainly(paths: Iterable[str]) -> Totals:
    """Count files one after the other, line by line."""
    files = lines = words = definitions = 0
    for path in paths:
        files += 1
        with Path(path).open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                lines += 1
                words += len(line.split())
                definitions += _defines(line)
    return Totals(files, lines, words, definitions)


def _defines(line: str) -> bool:
    keyword, rest = _first_word(line)
    if keyword == "async":
        keyword, rest = _first_word(rest)
        if keyword != "def":
            return False
    name = rest.lstrip(" \t")[:1]
    return keyword in ("def", "class") and (name.isalnum() or name == "_")


def _first_word(text: str) -> tuple[str, str]:
    word, _, rest = text.lstrip(" \t").replace("\t", " ").partition(" ")
    return word, rest
