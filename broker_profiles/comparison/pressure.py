"""How much everybody on this machine waits for a processor, and a patience that takes it into account.

Where nearly all of the time somebody waits for one, a task that has not run yet is as likely slow as lost.
Linux counts that time (pressure stall information); elsewhere nothing is known of it, and a second is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")

#: The share of the time, with somebody waiting, from which a machine is overloaded. Two columns a processor
#: side by side, as in a whole run, stay below it.
OVERLOAD = 0.9

#: What a second counts where somebody waits all the time.
_LEAST = 0.25


def stalled() -> float:
    """Return for how many seconds, since the machine was started, somebody has waited for a processor."""
    try:
        some = _PRESSURE.read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0


def worth(share: float) -> float:
    """Return what a second counts in which somebody has waited for this share of it: 1 below `OVERLOAD`."""
    if share <= OVERLOAD:
        return 1.0
    over = (min(share, 1.0) - OVERLOAD) / (1.0 - OVERLOAD)
    return 1.0 - over * (1.0 - _LEAST)


class Meter:
    """The share of the time, since it was made or last asked, in which somebody waited for a processor."""

    def __init__(
        self, stall: Callable[[], float] = stalled, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stall, self._clock = stall, clock
        self._at, self._stalled = clock(), stall()

    def lap(self) -> tuple[float, float]:
        """Return how many seconds have passed, and the share; both begin anew."""
        now, stalled = self._clock(), self._stall()
        seconds, waited = now - self._at, stalled - self._stalled
        self._at, self._stalled = now, stalled
        return seconds, waited / seconds if seconds > 0 else 0.0


class Patience:
    """So many seconds of patience, of which an overloaded machine takes less than its time."""

    def __init__(self, seconds: float, meter: Meter | None = None) -> None:
        self._left = seconds
        self._meter = meter or Meter()

    def over(self) -> bool:
        """Return whether it is used up. Ask often: each answer counts the time since the last one."""
        seconds, share = self._meter.lap()
        self._left -= seconds * worth(share)
        return self._left < 0
