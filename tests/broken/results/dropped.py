"""A result that cannot be stored at once is dropped."""

from __future__ import annotations

import contextlib
from typing import Any

from broker_profiles.errors import StoreError
from broker_profiles.results.sqlite_backend import SQLiteBackend

_set = SQLiteBackend.set


def _set_or_drop(self: SQLiteBackend, key: str, value: Any) -> None:
    with contextlib.suppress(StoreError):
        _set(self, key, value)


SQLiteBackend.set = _set_or_drop
