"""Sending a message together with the step of a mark, so that of all who would send it one does.

Between the scheduler, which knows the step, and the channel, which has the store, lies Celery's own way:
options, routes, signals, retries, connections that come back. So what goes with which message is kept aside,
for the block of code that sends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from broker_profiles.errors import AlreadySent
from broker_profiles.transports.store import Outgoing, Step, Store

_current: ContextVar[Once | None] = ContextVar("once", default=None)


class Once:
    """The message with a certain header to the broker at an address, and the step that is taken with it."""

    def __init__(self, step: Step, header: str, address: str) -> None:
        self.step = step
        #: Whether the step was taken with the message.
        self.taken = False
        self._header = header
        self._address = address
        self._id: str | None = None

    def is_for(self, message: dict[str, Any], address: str) -> bool:
        """Return whether this is the message, or the same once more after an error."""
        if self._header not in message["headers"] or address != self._address:
            return False
        id_ = str(message["properties"].get("correlation_id"))
        self._id = self._id or id_
        return self._id == id_

    def publish(self, store: Store, messages: Sequence[Outgoing]) -> None:
        """Take the step and store the messages. Raises `AlreadySent` where another did so before."""
        if not store.advance(self.step, messages):
            raise AlreadySent
        self.taken = True


@contextlib.contextmanager
def sending(once: Once) -> Iterator[None]:
    """Let the message that is sent in this block, by this thread, be sent once."""
    token = _current.set(once)
    try:
        yield
    finally:
        _current.reset(token)


def once_for(message: dict[str, Any], address: str) -> Once | None:
    """Return what goes with a message to the broker at this address; None where it is one like any other."""
    once = _current.get()
    return once if once is not None and once.is_for(message, address) else None
