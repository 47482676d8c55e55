"""The leased transport: all the kombu plumbing, once, over any `Store`.

A message is leased to the connection that reserved it. The lease is renewed while the process lives, by
a thread of its own, and covers everything the connection holds; so a task may last as long as it likes,
and what a dead process held is delivered again when its lease runs out.

Acknowledgements are collected and travel with the next reservation, in one step of the store. One that
is lost with its process means a second delivery, never a loss.
"""

from __future__ import annotations

import contextlib
import logging
import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import base, virtual
from kombu.utils.uuid import uuid

from broker_profiles.errors import StoreError, StoreUnavailable, Unroutable, redact
from broker_profiles.transports import routing
from broker_profiles.transports.channel import Channel
from broker_profiles.transports.forks import forks
from broker_profiles.transports.settling import Settlements
from broker_profiles.transports.store import KEPT, KEPT_SECONDS, Delivery, Receipt, Store
from broker_profiles.transports.threads import Keeper, Wakeup, Watcher

logger = logging.getLogger(__name__)

#: Seconds for which the bindings of a topic exchange are remembered; events are many, their readers few.
_TOPICS_REMEMBERED = 1.0

#: Seconds for which the end of the keeper is waited for when a connection is closed.
_KEEPER_ENDS_WITHIN = 5.0


class Transport(virtual.Transport):  # type: ignore[misc]
    """A connection: one store, one lease, the channels over it."""

    Channel = Channel
    #: Set by each system's transport.
    store_class: type[Store]
    can_parse_url = True
    connection_errors = (*base.Transport.connection_errors, StoreUnavailable, OSError)
    channel_errors = (*base.Transport.channel_errors, ChannelError, Unroutable)
    implements = base.Transport.implements.extend(
        asynchronous=True,
        exchange_type=frozenset(["direct", "topic", "fanout"]),
        heartbeats=False,
        batch_publish=True,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        self.client = client
        self.state = virtual.BrokerState()
        self.channels: list[Channel] = []
        self._avail_channels: list[Channel] = []
        self._used_channel_ids = array("H")
        self.consumer_id = uuid()
        self._generation = forks()
        self.settlements = Settlements(lambda: self.store, self._stale, self.wake)
        self._store: Store | None = None
        self._tag = 0
        self._keeper: Keeper | None = None
        self._watcher: Watcher | None = None
        self._wakeup: Wakeup | None = None
        self._loop: Any = None
        self._topics: dict[str, tuple[float, list[tuple[str, str]]]] = {}
        self._first = 0
        self._lease_lost = False

    # -- connecting -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store of this connection. Raises `StoreUnavailable`."""
        if self._store is None:
            self._store = self.store_class.open(self.client.hostname or "", self._options)
        return self._store

    @property
    def retention(self) -> tuple[float, int]:
        """For how many seconds a dead letter is kept, and how many a queue keeps."""
        options = self._options
        return float(options.get("dead_letter_seconds", KEPT_SECONDS)), int(
            options.get("dead_letter_limit", KEPT)
        )

    @property
    def delivery_limit(self) -> int:
        """The deliveries after which a message becomes a dead letter."""
        return int(self._options.get("delivery_limit", 5))

    @property
    def _options(self) -> dict[str, Any]:
        return dict(self.client.transport_options)

    @property
    def of_this_process(self) -> bool:
        """Whether this connection was made here and not inherited over a fork."""
        return self._generation == forks()

    def establish_connection(self) -> Transport:
        """Open the store, so that a bad address fails here and not at the first message."""
        _ = self.store
        self._lease_lost = False
        # Never the name of an earlier connection, whose messages nobody here knows.
        self.consumer_id = uuid()
        self._avail_channels.append(self.create_channel(self))
        return self

    def create_channel(self, connection: Any) -> virtual.Channel:
        """Return a channel."""
        if self._avail_channels:
            return self._avail_channels.pop()
        channel = Channel(self)
        self.channels.append(channel)
        return channel

    def close_connection(self, connection: Any) -> None:
        """Give back what is held, end the threads, close the store."""
        consumed = self._keeper is not None
        for thread in (self._keeper, self._watcher):
            if thread is not None:
                thread.end()
        if self._keeper is not None and self.of_this_process:
            # It may be sending acknowledgements, which have to be there before anything is given back.
            self._keeper.join(_KEEPER_ENDS_WITHIN)
        self._keeper = self._watcher = None
        try:
            for channel in [*self._avail_channels, *self.channels]:
                with contextlib.suppress(StoreError):
                    channel.close()
            if consumed and self._store is not None and self.of_this_process:
                # If this fails the rest is left to the end of the lease, which forgets no delivery.
                with contextlib.suppress(StoreError):
                    self.settlements.flush()
                    self._store.forget(self.consumer_id)
        finally:
            self._avail_channels.clear()
            self.channels.clear()
            self._leave_event_loop()
            store, self._store = self._store, None
            if store is not None:
                store.close()

    def verify_connection(self, connection: Any) -> bool:
        """Return whether the store is open."""
        return self._store is not None

    def driver_version(self) -> str:
        """Return the version of the system."""
        return self.store.version()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the address for people to read."""
        return uri if include_password else redact(uri)

    def dead_letters(self, connection: Any, queues: Sequence[str]) -> Store:
        """Return what knows the dead letters of all queues. Raises `StoreUnavailable`."""
        return self.store

    # -- routing ----------------------------------------------------------------------------------

    def route(self, exchange: str, routing_key: str) -> list[str]:
        """Return the queues a message goes to."""
        if not exchange:
            return [routing_key]
        kind = self.state.exchanges.get(exchange, {}).get("type", routing.UNKNOWN)
        return routing.route(kind, self._bindings(exchange, kind), routing_key)

    def _bindings(self, exchange: str, kind: str) -> Iterable[tuple[str, str]]:
        if kind != "topic":
            return self.store.bindings(exchange)
        known_at, bindings = self._topics.get(exchange, (-_TOPICS_REMEMBERED, []))
        if time.monotonic() - known_at >= _TOPICS_REMEMBERED:
            bindings = self.store.bindings(exchange)
            self._topics[exchange] = (time.monotonic(), bindings)
        return bindings

    # -- consuming --------------------------------------------------------------------------------

    def next_tag(self) -> int:
        """Return a delivery tag that no other message of this connection has."""
        self._tag += 1
        return self._tag

    def consumed_queues(self) -> list[str]:
        """Return the queues of all consumers."""
        return [queue for channel in list(self.channels) for queue in channel.queues]

    def waited_queues(self) -> tuple[list[str], bool]:
        """Return the queues that had nothing left, and whether these are all that are consumed."""
        channels = [channel for channel in list(self.channels) if channel.queues]
        waited = [channel for channel in channels if channel.dry]
        queues = [queue for channel in waited for queue in channel.queues]
        return queues, len(waited) == len(channels)

    def on_consuming(self) -> None:
        """Begin to hold a lease, and look for messages."""
        if self._keeper is None:
            lease = float(self._options.get("lease_seconds", 15.0))
            self._keeper = Keeper(self, lease)
            self._keeper.start()
        self.wake()

    def on_lease_lost(self) -> None:
        """Say that others may hold what this connection holds; its receipts are refused by the store."""
        logger.warning(
            "The lease of this worker ran out while it was stopped or cut off; "
            "its unfinished tasks may run elsewhere, and its acknowledgements of them do nothing."
        )
        self._lease_lost = True
        self.wake()

    def reserve(self, queues: list[str], limit: int) -> list[Delivery]:
        """Reserve messages, sending along what was settled."""
        return self.settlements.reserve(self.consumer_id, queues, limit)

    def _stale(self) -> list[Receipt]:
        channels = list(self.channels)
        return [delivery.receipt for channel in channels for delivery in channel.ahead.take_stale()]

    def pump(self) -> int:
        """Deliver to every channel that may have something; return how many messages that were.

        The loop is woken to ask again where there may be more; where not, the watcher waits for it.
        """
        if self._lease_lost:
            # Celery connects anew: it stops what runs elsewhere now, and declares its queues again.
            raise StoreUnavailable(store=self.store_class.system, problem="this connection lost its lease")
        delivered = 0
        more = False
        self._first += 1
        turn = self._first % max(1, len(self.channels))
        for channel in [*self.channels[turn:], *self.channels[:turn]]:
            if channel.dry or not channel.room():
                continue
            delivered += channel.deliver_all(channel.fetch())
            more = more or not channel.dry
        if more:
            self.wake()
        elif self.settlements and all(channel.dry for channel in self.channels if channel.room()):
            self.settlements.flush()
        if self._watcher is not None and any(channel.dry for channel in self.channels):
            self._watcher.arm()
        return delivered

    def look_again(self) -> None:
        """Ask the queues again that had nothing; from any thread."""
        for channel in list(self.channels):
            channel.dry = False
        self.wake()

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver what there is, waiting for it up to `timeout` seconds. Raises `TimeoutError`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.pump():
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError("no message")
            self.store.wait(self.waited_queues()[0], left)
            self.look_again()

    # -- the event loop ---------------------------------------------------------------------------

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver from Celery's event loop whenever a message may be ready."""
        self._loop = loop
        self._wakeup = Wakeup()
        self._watcher = Watcher(self)
        self._watcher.start()
        loop.add_reader(self._wakeup, self._on_wakeup)
        self.wake()

    def _leave_event_loop(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            # The loop may have been reset already, and then knows nothing of it.
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._loop.remove(wakeup.fileno())
            wakeup.close()

    def wake(self) -> None:
        """Make the event loop look for messages; from any thread, and harmless without a loop."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.set()

    def _on_wakeup(self) -> None:
        if self._wakeup is not None:
            self._wakeup.clear()
            self.pump()

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Do nothing: `register_with_event_loop` has set up all there is."""
