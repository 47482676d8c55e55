"""How fast the machine is right now: a fixed piece of work, timed before each row.

A row that was measured while something else ran, or while the machine was slow, is marked; its numbers
are shown, but nothing is concluded from them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

#: How much longer than at its best the work may take.
SLOWER = 1.3

#: Which share of all processors others may use meanwhile: a quarter is half a core of two.
OTHERS = 0.25

#: How long quiet moments are waited for in a whole run, in seconds, and how long between two looks.
PATIENCE = 20.0
_PAUSE = 0.5

#: How often one row looks for a quiet moment.
_LOOKS = 5

_WORK = 1_000_000

#: Times of the processors that are no work, or that are counted in others.
_NO_WORK = {"idle", "iowait", "guest", "guest_nice"}


@dataclass(frozen=True, slots=True)
class Probe:
    """How long the work took, in seconds, and which share of all processors others used meanwhile."""

    seconds: float
    others: float

    def quiet(self, best: float) -> bool:
        """Return whether the machine was nearly as fast as at its `best`, and nearly ours alone."""
        return self.seconds <= best * SLOWER and self.others <= OTHERS


#: What the processes that are measured have used so far, in processor seconds.
Ours = Callable[[], float]


def take(ours: Ours) -> Probe:
    """Do the work and look at the processors.

    What `ours` use meanwhile, such as a broker that tidies up, disturbs nobody.
    """
    before = ours() + time.process_time()
    busy, began = _busy(), time.perf_counter()
    total = 0
    for number in range(_WORK):
        total += number
    seconds, busy = time.perf_counter() - began, _busy() - busy
    others = busy - (ours() + time.process_time() - before)
    return Probe(seconds, max(0.0, others) / seconds / (os.cpu_count() or 1))


class Prober:
    """Takes probes of one run, and knows the best there was."""

    def __init__(
        self, take: Callable[[Ours], Probe] = take, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._take = take
        self._pause = pause
        self._patience = PATIENCE
        self.best = min(take(lambda: 0.0).seconds for _ in range(3))

    def disturbed(self, ours: Ours) -> bool:
        """Wait a little for a quiet moment, where there is patience left; return whether there was none."""
        for _ in range(_LOOKS):
            probe = self._take(ours)
            self.best = min(self.best, probe.seconds)
            if probe.quiet(self.best):
                return False
            if self._patience <= 0:
                return True
            self._patience -= _PAUSE
            self._pause(_PAUSE)
        return True


def _busy() -> float:
    """Return the seconds that the processors have worked, all together; time a host took is among them."""
    times = psutil.cpu_times()._asdict()
    return float(sum(seconds for name, seconds in times.items() if name not in _NO_WORK))
