"""Heartbeats that do not depend on the worker's loop, so that they can be frequent.

Celery sends them from its event loop, and from nowhere while a solo worker runs a task: with an interval
short enough to find a half-open connection soon, RabbitMQ would end the connection of every solo worker
that is busy for longer than two intervals.
"""

from __future__ import annotations

import contextlib
import select
import threading
import weakref
from typing import Any

from amqp.exceptions import ConnectionForced

#: Heartbeats sent in each interval.
_RATE = 2


class Heart(threading.Thread):
    """Sends the heartbeats of one connection for as long as it is there. py-amqp locks its frames."""

    def __init__(self, connection: Any) -> None:
        super().__init__(name="broker-profiles-heart", daemon=True)
        self._connection = weakref.ref(connection)
        self._every = connection.heartbeat / _RATE
        self._ended = threading.Event()

    def end(self) -> None:
        """Send no more."""
        self._ended.set()

    def run(self) -> None:
        """Send until the connection ends."""
        while not self._ended.wait(self._every):
            connection = self._connection()
            if connection is None or not connection.connected:
                return
            # Whoever reads or writes next finds out that it has ended, and why.
            with contextlib.suppress(OSError, AttributeError, ConnectionForced):
                connection.send_heartbeat()
            del connection


class Beating:
    """What a py-amqp connection needs to have a heart: it begins to beat with the first consumer."""

    _heart: Heart | None = None

    def begin_to_beat(self) -> None:
        """Send heartbeats from now on, where they were agreed upon."""
        if self._heart is None and self.heartbeat:  # type: ignore[attr-defined]
            self._heart = Heart(self)
            self._heart.start()

    def heartbeat_tick(self, rate: int = _RATE) -> None:
        """Look for missed heartbeats. Raises `ConnectionForced`.

        After a loop that was busy for long the server's may be waiting to be read.
        """
        try:
            super().heartbeat_tick(rate)  # type: ignore[misc]
        except ConnectionForced:
            if select.select([self.sock], [], [], 0)[0]:  # type: ignore[attr-defined]
                return
            # An orderly close would wait for the answer of somebody who does not answer.
            self.collect()
            raise

    def collect(self) -> None:
        """Close the socket."""
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.end()
        super().collect()  # type: ignore[misc]
