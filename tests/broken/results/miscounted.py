"""A part of a chord counts each time that one returns: twice for each."""

from __future__ import annotations

from broker_profiles.results.sqlite_backend import SQLiteBackend

_note_part = SQLiteBackend._note_part


def _note_twice(self: SQLiteBackend, key: str, part: str) -> int:
    return _note_part(self, key, f"{part} again") and _note_part(self, key, part)


SQLiteBackend._note_part = _note_twice
