"""How a connection tells its store what has become of the messages it held.

Acknowledgements are collected and travel with the next reservation; what nobody has worked on is given
back. Nothing here is forgotten before the store has it: what fails is tried again by the keeper.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from broker_profiles.errors import StoreBusy, StoreUnavailable
from broker_profiles.transports.store import Delivery, Receipt, Store


class Settlements:
    """The acknowledgements and returns of one connection; safe from any thread.

    `store` gives the connection's store, `stale` what was reserved ahead and has lain too long, and `wake`
    makes the event loop look for messages.
    """

    def __init__(
        self, store: Callable[[], Store], stale: Callable[[], list[Receipt]], wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._stale = stale
        self._wake = wake
        self._settled: deque[Receipt] = deque()
        self._settled_since = 0.0
        self._using_store = threading.RLock()
        #: What could not be given back yet, by whether the delivery counts.
        self._unreleased: dict[bool, list[Receipt]] = {True: [], False: []}

    def __bool__(self) -> bool:
        """Whether an acknowledgement waits to be sent."""
        return bool(self._settled)

    def reserve(self, consumer: str, queues: Sequence[str], limit: int) -> list[Delivery]:
        """Reserve messages, sending along what was settled."""
        with self._using_store:
            settled = self._take_settled()
            try:
                return self._store().reserve(consumer, queues, limit, settled)
            except StoreBusy:
                # Locked by a neighbour and not gone: the lease holds, and the watcher looks again.
                self._settled.extendleft(reversed(settled))
                return []
            except BaseException:
                self._settled.extendleft(reversed(settled))
                raise

    def settle(self, receipt: Receipt) -> None:
        """Note an acknowledgement; from any thread."""
        if not self._settled:
            self._settled_since = time.monotonic()
        self._settled.append(receipt)
        self._wake()

    def flush(self) -> None:
        """Send the acknowledgements that are noted."""
        with self._using_store, contextlib.suppress(StoreBusy):
            self._acknowledge(self._store())

    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Put messages back; from any thread."""
        try:
            with self._using_store:
                self._store().release(receipts, counted=counted)
        except StoreUnavailable:
            # The keeper gives them back as soon as it can; until then they are held and not lost.
            self._unreleased[counted] += receipts
        self._wake()

    def set_aside(self, receipt: Receipt, reason: str, detail: str) -> None:
        """Make a dead letter of a message; from any thread."""
        try:
            with self._using_store:
                self._store().set_aside([receipt], reason, detail)
        except StoreUnavailable:
            # Given back it is delivered again, and set aside then; kept it would wait for this worker's end.
            self._unreleased[True].append(receipt)
        self._wake()

    def settle_overdue(self, store: Store, seconds: float) -> None:
        """Send them over another store if they have waited this long, for the loop may be busy for hours.

        Gives back, too, what was reserved ahead and not used in time.
        """
        # The loop must not reserve between the two halves of this: later messages would come before these.
        with self._using_store:
            self._unreleased[False] += self._stale()
            for counted, waiting in self._unreleased.items():
                if waiting:
                    receipts = list(waiting)
                    store.release(receipts, counted=counted)
                    # Only now: what could not be given back is tried again in the next round.
                    del waiting[: len(receipts)]
                    self._wake()
        if self._settled and time.monotonic() - self._settled_since >= seconds:
            self._acknowledge(store)

    def _acknowledge(self, store: Store) -> None:
        settled = self._take_settled()
        if not settled:
            return
        try:
            store.acknowledge(settled)
        except BaseException:
            self._settled.extendleft(reversed(settled))
            raise

    def _take_settled(self) -> list[Receipt]:
        taken: list[Receipt] = []
        try:
            while True:
                taken.append(self._settled.popleft())
        except IndexError:
            return taken
