"""A worker whose clock is wrong, and what it leaves on the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker_profiles.comparison import clock
from broker_profiles.comparison.clock import remove_shared_memory


def names(pid: int) -> list[str]:
    """Return the names that `faketime` gives to what it shares."""
    return [f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"]


def test_what_killed_processes_have_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_SHARED", tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(20)
    kept = {*names(os.getpid()), "faketime_shm_other", "PostgreSQL.1"}
    for name in (*names(ended.pid), *kept):
        (tmp_path / name).touch()
    remove_shared_memory()
    assert {path.name for path in tmp_path.iterdir()} == kept
