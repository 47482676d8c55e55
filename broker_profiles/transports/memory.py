"""The leased store inside one process: SQLite over one database in memory, shared by its threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from broker_profiles.transports import leased
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA

_file = SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF")


class MemoryStore(SQLiteStore):
    """A `Store` that every connection of this process shares."""

    system = "memory"

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Return a store over the database of this process."""
        return cls(
            _file,
            float(options.get("lease_seconds", 15.0)),
            int(options.get("delivery_limit", 5)),
        )

    def close(self) -> None:
        """Do nothing: the messages live as long as the process."""


class Transport(leased.Transport):
    """Celery's messages in memory."""

    store_class = MemoryStore
    driver_type = "memory"
    driver_name = "memory"
