"""A result is in the memory of the process that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker_profiles.results.sqlite_backend import SQLiteBackend

_results: dict[str, Any] = {}


def _set(self: SQLiteBackend, key: str, value: Any) -> None:
    _results[key] = value


def _mget(self: SQLiteBackend, keys: Sequence[str]) -> list[Any]:
    return [_results.get(key) for key in keys]


SQLiteBackend.set, SQLiteBackend.mget = _set, _mget
