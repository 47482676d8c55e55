"""How many messages to reserve beyond what the consumer may hold: many while tasks are short, none else.

A worker that may hold two messages would ask the store for two at a time. Where tasks take microseconds
that is most of its work, so more are reserved and kept aside. They are not prefetched in Celery's sense:
what has lain aside for `STALE_AFTER` seconds goes back to the queue, so that nothing waits behind a long
task while another worker is free.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from broker_profiles.transports.store import Delivery

#: The most messages kept aside.
MOST = 64

#: Messages that are used up within so many seconds were worth it, and twice as many are reserved next.
_QUICK = 0.05

#: Seconds after which what lies aside is given back.
STALE_AFTER = 0.1


class ReadAhead:
    """Messages reserved early, and how many of them there should be.

    One thread fills and takes; another may call `take_stale`. Each message is given to one of the two.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._aside: deque[Delivery] = deque()
        self._filled_at = 0.0
        self._most = 0

    def __len__(self) -> int:
        return len(self._aside)

    @property
    def extra(self) -> int:
        """How many messages to ask for beyond those needed now."""
        return self._most

    def fill(self, deliveries: Iterable[Delivery]) -> None:
        """Keep these aside; call it after every reservation, also with none."""
        now = self._clock()
        if now - self._filled_at < _QUICK:
            self._most = min(MOST, max(1, self._most * 2))
        elif not self._aside:
            self._most //= 2
        self._filled_at = now
        self._aside.extend(deliveries)

    def take(self, most: int) -> list[Delivery]:
        """Return up to so many, oldest first; none that is stale, for its lease may have ended."""
        taken: list[Delivery] = []
        if self._clock() - self._filled_at < STALE_AFTER:
            while len(taken) < most and self._aside:
                taken.append(self._aside.popleft())
        return taken

    def take_stale(self, *, everything: bool = False) -> list[Delivery]:
        """Return what has lain aside too long, or everything, to be given back."""
        if not self._aside or not (everything or self._clock() - self._filled_at >= STALE_AFTER):
            return []
        self._most = 0
        taken: list[Delivery] = []
        try:
            while True:
                taken.append(self._aside.popleft())
        except IndexError:
            return taken
