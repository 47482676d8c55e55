"""When nobody does more than wait for work: what passes over the network has become even.

Waiting is not silence. Some brokers are asked over and over whether there is anything, leases are renewed,
heartbeats sent. What all of them have in common is that one second is like the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

#: How many seconds have to be alike.
_ALIKE = 3

#: How many bytes one of them may have that another has not: what is renewed is not renewed every second.
_RENEWALS = 3_000


def is_even(passed: Sequence[int]) -> bool:
    """Return whether the last of these seconds, each given by its bytes, are alike."""
    last = passed[-_ALIKE:]
    return len(last) == _ALIKE and max(last) <= 2 * min(last) + _RENEWALS


class Idle:
    """A condition: true once seconds that are alike have passed since it was made.

    `carried` returns how many bytes have passed so far. Ask often; what comes late makes a longer second.
    """

    def __init__(self, carried: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._carried = carried
        self._clock = clock
        self._passed: list[int] = []
        self._begin_second()

    def __call__(self) -> bool:
        """Look, and return whether it is idle."""
        if self._clock() - self._began >= 1:
            self._passed.append(self._carried() - self._before)
            self._begin_second()
        return is_even(self._passed)

    def _begin_second(self) -> None:
        self._began, self._before = self._clock(), self._carried()
