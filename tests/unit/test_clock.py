"""A worker whose clock is wrong, and what it leaves on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_profiles.comparison import clock
from broker_profiles.comparison.clock import remove_shared_memory


def names(pid: int) -> set[str]:
    """Return the names that `faketime` gives to what it shares."""
    return {f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"}


def test_what_our_processes_have_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_SHARED", tmp_path)
    kept = names(10) | {"PostgreSQL.1"}
    for name in names(1) | kept:
        (tmp_path / name).touch()
    remove_shared_memory([1, 2])
    assert {path.name for path in tmp_path.iterdir()} == kept
