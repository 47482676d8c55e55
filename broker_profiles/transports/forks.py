"""How often this process was forked from another: a cheap way to see that a connection is inherited."""

from __future__ import annotations

import os

_count = 0


def forks() -> int:
    """Return a number that differs between a process and its children."""
    return _count


def _count_one() -> None:
    global _count
    _count += 1


os.register_at_fork(after_in_child=_count_one)
