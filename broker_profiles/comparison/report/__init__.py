"""The reports of a run: the results document, and what is made from it."""

from __future__ import annotations

from pathlib import Path

from broker_profiles.comparison.report import data, junit, markdown, page
from broker_profiles.comparison.report.changes import Change
from broker_profiles.comparison.report.changes import compare as changes
from broker_profiles.comparison.report.data import Document, document, load

__all__ = ["Change", "changes", "document", "load", "write"]


def write(document: Document, folder: Path) -> None:
    """Write every form of a report into a folder that is there. Raises `OSError`."""
    data.save(document, folder / "results.json")
    for name, text in (
        ("junit.xml", junit.render(document)),
        ("comparison.md", markdown.render(document)),
        ("index.html", page.render(document)),
    ):
        # Half a character in somebody's error message must not cost the report.
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
