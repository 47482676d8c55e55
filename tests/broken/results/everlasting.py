"""A result never expires."""

from __future__ import annotations

from broker_profiles.results.sqlite_backend import SQLiteBackend


def _never(self: SQLiteBackend, seconds: float | None) -> None:
    return None


SQLiteBackend._expiry = _never
