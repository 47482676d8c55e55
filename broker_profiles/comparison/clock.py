"""A process whose clock is wrong, as a machine's may be: by libfaketime, where it can be had."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from broker_profiles.comparison.scenario import NotApplicable
from broker_profiles.comparison.servers import ServerUnavailable
from broker_profiles.comparison.servers.programs import can_install, install
from broker_profiles.profile import Profile

_PROGRAM = "faketime"

#: Where the memory is that it shares with the processes it starts, named by its process.
_SHARED = Path("/dev/shm")  # noqa: S108

#: What Python runs before all else. libfaketime fails the call by which Python sleeps, not the one by which
#: it waits for nothing.
_SLEEP = """import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def other_clock(profile: Profile, seconds: int, folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return what to put before a command, and its environment, so that its clock is so many seconds off.

    The monotonic clock stays right, for the ledger is written by it. A file is written to the folder.
    Raises `NotApplicable`.
    """
    if profile.broker.address in (None, "sqlite"):
        raise NotApplicable("a file has no clock: everyone who can open it has the clock of its machine")
    if shutil.which(_PROGRAM) is None and can_install():
        try:
            install(_PROGRAM)
        except ServerUnavailable as error:
            raise NotApplicable(str(error)) from None
    program = shutil.which(_PROGRAM)
    if program is None:
        raise NotApplicable(f"{_PROGRAM} is not installed (Debian, Ubuntu: apt-get install {_PROGRAM})")
    own = folder / "clock"
    own.mkdir(exist_ok=True)
    (own / "sitecustomize.py").write_text(_SLEEP)
    return [program, "-f", f"{seconds:+d}s"], {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": str(own)}


def remove_shared_memory(processes: Iterable[int]) -> None:
    """Remove what those of them that are `faketime` left when killed: another of that id would not start."""
    for pid in processes:
        for name in (f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"):
            (_SHARED / name).unlink(missing_ok=True)
