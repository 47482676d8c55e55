"""The SQLite store, in a file and in memory, against the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker_profiles.transports import memory
from broker_profiles.transports.memory import MemoryStore
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.sqlite_file import IN_MEMORY, SQLiteFile
from broker_profiles.transports.sqlite_tables import SCHEMA
from broker_profiles.transports.store import Store
from tests.stores.contract import StoreContract


class TestFile(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[..., Store]:
        def open_store(**options: Any) -> Store:
            return SQLiteStore.open(f"sqlite:///{tmp_path / 'store.sqlite3'}", options)

        return open_store


class TestMemory(StoreContract):
    outlives_its_process = False

    @pytest.fixture
    def open_store(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
        file = SQLiteFile(IN_MEMORY, SCHEMA, timeout=5.0, synchronous="OFF")
        monkeypatch.setattr(memory, "_file", file)
        return lambda **options: MemoryStore.open("memory://", options)
