"""README.md, read: its fenced blocks by the heading above them, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from tests.acceptance.running import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language, its lines, and where it is."""

    section: str
    language: str
    lines: list[str]
    number: int


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    section, opened = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if opened is not None:
            if line == "```":
                yield opened
                opened = None
            else:
                opened.lines.append(line)
        elif line.lstrip().startswith(("```", "~~~")):
            assert re.fullmatch(r"```\w+", line), f"line {number}: a block needs a language and no indent"
            opened = Block(section, line[3:], [], number)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    assert opened is None, f"{text[:20]!r}: a block is not closed"


SECTIONS = {section: list(found) for section, found in groupby(blocks(README), lambda block: block.section)}


def table(*header: str) -> list[list[str]]:
    """Return the rows of the table with this header, without the marks of code."""
    start = README.index(f"| {' | '.join(header)} |\n")
    lines = README[start:].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == len(header) for row in rows)
    return rows
