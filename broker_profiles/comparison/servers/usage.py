"""What processes have used: processor time and memory, of one process with all it started."""

from __future__ import annotations

import contextlib

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; none where it has gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a tree since its start, of those that have ended in it too."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # A child that has ended is in the sums of the parent that waited for it.
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(pid: int) -> int:
    """Return the proportional set size of a tree, in bytes: shared pages count once, not once a process.

    Where the system knows no such size it is what each process has for itself. Raises
    `psutil.AccessDenied` for processes of other users.
    """
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total
