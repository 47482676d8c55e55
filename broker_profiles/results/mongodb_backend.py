"""Celery's results in MongoDB, which wait for a server that is away, and groups that can be restored."""

from __future__ import annotations

from typing import Any

from celery.backends import mongodb
from celery.result import GroupResult
from pymongo.errors import ConnectionFailure


class MongoBackend(mongodb.MongoBackend):  # type: ignore[misc]
    """A result backend that tries again, and restores what it has saved."""

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether trying again may help; Celery's says never, and drops the result."""
        return isinstance(exc, ConnectionFailure)

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        """Return a saved group with its result; Celery's has a list in its place."""
        meta = super()._restore_group(group_id)
        if meta is None:
            return None
        restored: dict[str, Any] = {**meta, "result": GroupResult(group_id, meta["result"], app=self.app)}
        return restored
