"""When a process removes results that have expired: rarely, a few at a time, after it has stored one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from celery.utils.log import get_logger

logger = get_logger(__name__)

#: Seconds between two removals by one process; less where results are kept for less than ten minutes.
_EVERY = 60.0

#: Seconds after which a removal goes on that has left something: as fast as one process ever stores.
_GO_ON = 1.0

#: The most results that one step removes: some ten milliseconds of a server's work.
BATCH = 1000


class Removal:
    """Says when it is time, and lets no error of it reach the task whose result was just stored."""

    def __init__(self, expires: float | None) -> None:
        """Take the seconds that results are kept: nothing, or 0, is for ever."""
        self._every = min(_EVERY, max(_GO_ON, expires / 10)) if expires else None
        self._due: float | None = None

    def after_storing(self, remove: Callable[[], int]) -> None:
        """Call a function that removes up to `BATCH` results, and returns how many, if it is time to."""
        if self._every is None:
            return
        now = time.monotonic()
        if self._due is None:
            # Not all processes at the same time, those of a pool neither: so not before they are forked.
            self._due = now + random.uniform(0, self._every)
        if now < self._due:
            return
        self._due = now + self._every
        try:
            removed = remove()
        except Exception as error:  # of any driver; the next one tries again
            logger.warning("Expired results could not be removed: %s", type(error).__name__)
            return
        if removed >= BATCH:
            self._due = time.monotonic() + _GO_ON


def remove_all(remove: Callable[[], int]) -> int:
    """Call a function that removes up to `BATCH` results until there are no more; return how many in all."""
    removed = 0
    while (some := remove()) >= BATCH:
        removed += some
    return removed + some
