"""The two threads of a consuming connection: one renews its lease, one waits for messages.

Each has a store of its own, so that neither a task that blocks the worker's loop (the solo pool) nor a
server that does not answer keeps the other from its work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from broker_profiles.transports.store import Store

if TYPE_CHECKING:
    from broker_profiles.transports.leased import Transport

logger = logging.getLogger(__name__)

#: How long settled messages may wait for the worker's loop before the keeper sends them, in seconds.
SETTLE_WITHIN = 0.2

#: Control and event queues of Celery expire after 10 s without use.
_QUEUES_USED_EVERY = 3.0

#: The longest a waiting thread goes without looking whether it should end, in seconds.
_SLICE = 1.0

#: The same while some consumer is full, in seconds.
_SHORT_SLICE = 0.05


class _StoreThread(threading.Thread, ABC):
    """A daemon thread with its own store, opened when first needed and again after an error."""

    def __init__(self, name: str, original: Store) -> None:
        super().__init__(name=name, daemon=True)
        self._original = original
        self._store: Store | None = None
        self._ended = threading.Event()
        self._failing = False

    def end(self) -> None:
        """Ask the thread to end; it does so within a second."""
        self._ended.set()

    def run(self) -> None:
        """Work until asked to end, whatever the store does."""
        try:
            while not self._ended.is_set():
                try:
                    if self._store is None:
                        self._store = self._original.clone()
                    self.step(self._store)
                    self._say_it_works()
                except Exception as error:  # a dead keeper loses the lease, a dead watcher every message
                    self._say_it_fails(error)
                    self._drop_store()
                    self._ended.wait(_SLICE)
        finally:
            self._drop_store()

    def _say_it_fails(self, error: Exception) -> None:
        """Log the first failure of a row; the rest would fill the log for as long as a server is away."""
        if not self._failing:
            logger.warning("%s: %s Trying again every second.", self.name, error)
        self._failing = True

    def _say_it_works(self) -> None:
        if self._failing:
            logger.warning("%s: works again.", self.name)
        self._failing = False

    def _drop_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(Exception):
                store.close()

    @abstractmethod
    def step(self, store: Store) -> None:
        """Do one round of work."""


class Keeper(_StoreThread):
    """Renews the lease at a third of its time, and settles what the worker's loop is too busy to settle."""

    def __init__(self, transport: Transport, lease_seconds: float) -> None:
        super().__init__("broker-profiles-keeper", transport.store)
        self._transport = transport
        self._every = min(lease_seconds / 3, _QUEUES_USED_EVERY)
        self._renewed_at = -lease_seconds
        #: The queues whose dead letters are being cleared, a page in a step: the lease does not wait for it.
        self._clearing: list[str] | None = None

    def step(self, store: Store) -> None:
        """Renew if it is time; settle what has waited; then remove a page of dead letters that are due."""
        now = time.monotonic()
        if now - self._renewed_at >= self._every:
            first = self._renewed_at < 0
            queues = self._transport.consumed_queues()
            held = store.renew(self._transport.consumer_id, queues)
            self._renewed_at = now
            if not held and not first:
                self._transport.on_lease_lost()
            self._clearing = queues
        self._transport.settlements.settle_overdue(store, SETTLE_WITHIN)
        if self._clearing is not None:
            if store.expire_dead_letters(self._clearing, *self._transport.retention):
                return
            self._clearing = None
        self._ended.wait(min(SETTLE_WITHIN, self._every))


class Watcher(_StoreThread):
    """Waits in the store while the worker has nothing to do, and wakes its loop."""

    def __init__(self, transport: Transport) -> None:
        super().__init__("broker-profiles-watcher", transport.store)
        self._transport = transport
        self._armed = threading.Event()

    def arm(self) -> None:
        """Wake the loop once when a message may be ready in a queue that had none."""
        if not self._armed.is_set():
            self._armed.set()

    def end(self) -> None:
        """Ask the thread to end."""
        super().end()
        self._armed.set()

    def step(self, store: Store) -> None:
        """Wait until armed, then for a message."""
        if not self._armed.wait(_SLICE) or self._ended.is_set():
            return
        # Cleared before looking: who arms it after this begins another round.
        self._armed.clear()
        found = False
        try:
            queues, all_of_them = self._transport.waited_queues()
            # A queue that is left out now may run dry a moment later.
            found = not queues or store.wait(queues, _SLICE if all_of_them else _SHORT_SLICE)
            if queues and found:
                self._transport.look_again()
        finally:
            # After an error too: the loop relies on being woken, whatever happens here.
            if not found:
                self._armed.set()


class Wakeup:
    """A file descriptor that another thread can make readable."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._lock = threading.Lock()
        self._set = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._read

    def set(self) -> None:
        """Make the descriptor readable."""
        with self._lock:
            if not self._set and self._write >= 0:
                self._set = True
                os.write(self._write, b"\0")

    def clear(self) -> None:
        """Make it unreadable again."""
        with self._lock:
            if self._set:
                self._set = False
                os.read(self._read, 8)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            if self._write >= 0:
                os.close(self._read)
                os.close(self._write)
                self._write = -1
