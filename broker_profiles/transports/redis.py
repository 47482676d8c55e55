"""The leased store in Redis >= 6.2 or Valkey, and the transport over it.

Each method is one Lua script, so it happens as a whole or not at all, also in the append-only file and on
replicas; `lua/common.lua` says what is kept under which key. Everything derives from the rank of a
message, which is its id, its place and its priority in one number.

A receipt names the delivery by a nonce drawn at random for each reservation. So no receipt ever fits
another delivery, even if the server came back with older data and gives numbers out again.

Idle consumers block on a token that the next message leaves for one of them.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from broker_profiles.errors import StoreError
from broker_profiles.profile import version_number
from broker_profiles.transports import leased
from broker_profiles.transports.redis_records import RedisRecords, fields, milliseconds
from broker_profiles.transports.redis_scripts import Argument, Link
from broker_profiles.transports.store import (
    Delivery,
    Outgoing,
    Receipt,
    Sizes,
)

#: What keys begin with where no `key_prefix` is given.
DEFAULT_PREFIX = "broker-profiles"

#: How many ranks one priority has; as in `lua/common.lua`.
_SPAN = 2**49

#: Random bytes of a nonce, and its length as text.
_NONCE_BYTES, _NONCE = 9, 12

#: The most receipts one run of a consumer holds: what Lua can unpack, and some room.
_RUN = 1000

#: Seconds for which the server may let `wait` block, so that a dead connection is noticed soon after.
_BLOCK = 2.0

_OLDEST = (6, 2)


class RedisStore(RedisRecords):
    """A `Store` under one prefix; see the interface for what each method promises."""

    system = "redis"

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        self._options = options
        self._lease = int(float(options.get("lease_seconds", 15.0)) * 1000)
        self._delivery_limit = int(options.get("delivery_limit", 5))
        timeout = float(options.get("timeout_seconds", 5.0))
        name = str(options.get("key_prefix") or DEFAULT_PREFIX)
        # The braces are a hash tag: in a cluster all keys are in one slot.
        self._prefix = f"{{{name}}}:"
        self._link = Link(url, self._prefix, timeout)
        # Blocking has a connection of its own, for receipts are settled meanwhile.
        self._waiting = Link(url, self._prefix, timeout, _BLOCK)
        self._unanswered = ""

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Connect to `redis://`, `rediss://` (certificates are verified) or `unix://`."""
        store = cls(url, options)
        version = store.version()
        if version_number(version) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            store.close()
            raise StoreError(store=str(store._link), problem=f"it is version {version}; {oldest} is needed")
        return store

    def clone(self) -> Self:
        """Return a store with connections of its own."""
        return type(self)(self._url, self._options)

    def close(self) -> None:
        """Close both connections."""
        self._link.close()
        self._waiting.close()

    def version(self) -> str:
        """Return the version of the server; unlike INFO, HELLO is allowed to every user."""
        answer = self._link.command("HELLO")
        return str(dict(zip(answer[::2], answer[1::2], strict=False))[b"version"], "ascii")

    # -- messages ---------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Store the messages, in one round trip."""
        if messages:
            self._link.script("publish", fields(messages))

    def reserve(
        self,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt] = (),
    ) -> list[Delivery]:
        """Acknowledge and lease, in one round trip."""
        # Where no answer came, the nonce stays, and what was leased by it without our knowledge goes back.
        nonce, again = self._unanswered, 1
        if not nonce:
            nonce, again = base64.urlsafe_b64encode(os.urandom(_NONCE_BYTES)).decode(), 0
            self._unanswered = nonce
        about, *bodies = self._link.script(
            "reserve",
            [
                consumer,
                nonce,
                again,
                self._lease,
                limit,
                self._delivery_limit,
                len(queues),
                *queues,
                *_runs(acknowledge),
            ],
        )
        self._unanswered = ""
        token = nonce + consumer
        words = about.split()
        deliveries = []
        for number, rank, count, body in zip(words[::3], words[1::3], words[2::3], bodies, strict=True):
            receipt = Receipt(int(rank), token)
            priority = 9 - receipt.message // _SPAN  # type: ignore[operator]
            deliveries.append(Delivery(queues[int(number) - 1], body, priority, receipt, int(count)))
        return deliveries

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Remove the messages that these receipts still hold."""
        if receipts:
            self._link.script("acknowledge", _runs(receipts))

    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Make the messages ready again; their ranks, and so their places, stay."""
        if receipts:
            self._link.script("release", [0 if counted else 1, *_runs(receipts)])

    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        """Move the messages to the dead letters."""
        if receipts:
            self._link.script("set_aside", [reason, detail, *_runs(receipts)])

    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        """Extend the lease, and end what has run out, a limited number at a time.

        Where no consumer has renewed for half a lease, the server was down or frozen rather than all
        the workers at once; every lease then gets half a lease more, so that a restart does not
        take from living workers what they hold. A consumer that comes back before anybody ended its
        lease goes on with it.
        """
        return bool(self._link.script("renew", [consumer, self._lease, *queues]))

    def forget(self, consumer: str) -> None:
        """Give back what the consumer holds, uncounted, and forget it."""
        self._link.script("forget", [consumer])

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Block on the tokens of the queues, until one comes or a delayed message is due."""
        deadline = time.monotonic() + timeout
        tokens = [f"{self._prefix}wake:{queue}" for queue in queues]
        while (left := deadline - time.monotonic()) > 0:
            if not tokens:
                time.sleep(left)
                return False
            due = self._waiting.script("look", queues)
            if due == 0:
                return True
            # A token that came since the look is still there, so nothing is missed in between.
            block = min(left, _BLOCK, due / 1000 if due > 0 else _BLOCK)
            token = self._waiting.command("BLPOP", *tokens, f"{max(block, 0.001):.3f}")
            if token is not None and token[1] == b"ready":
                return True
        return False

    # -- queues and bindings ----------------------------------------------------------------------

    def declare(self, queue: str, *, expires: float | None, message_ttl: float | None) -> None:
        """Make the queue known if it is not; what it was declared with first stays."""
        self._link.script("declare", [queue, milliseconds(expires), milliseconds(message_ttl)])

    def exists(self, queue: str) -> bool:
        """Return whether the queue is known."""
        return bool(self._link.command("HEXISTS", f"{self._prefix}queues", queue))

    def drop(self, queue: str) -> None:
        """Remove the queue, its messages and its bindings."""
        self._link.script("drop", [queue])

    def bind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Add the binding."""
        self._link.script("bind", [exchange, routing_key, queue, "SADD"])

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Remove the binding."""
        self._link.script("bind", [exchange, routing_key, queue, "SREM"])

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Return the bindings of the exchange."""
        members: Iterable[bytes] = self._link.command("SMEMBERS", f"{self._prefix}bindings:{exchange}")
        pairs = (member.decode().partition("\0") for member in members)
        return sorted((key, queue) for key, _, queue in pairs)

    def sizes(self, queue: str) -> Sizes:
        """Count the messages; none is looked at."""
        return Sizes(*self._link.script("sizes", [queue]))

    def purge(self, queue: str) -> int:
        """Remove what nobody holds."""
        return int(self._link.script("purge", [queue]))


def _runs(receipts: Iterable[Receipt]) -> list[Argument]:
    """Return receipts as `settle` in `lua/held.lua` reads them: by consumer, ranks first, then nonces."""
    by_consumer: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        by_consumer.setdefault(str(receipt.token)[_NONCE:], []).append(receipt)
    arguments: list[Argument] = []
    for consumer, all_ in by_consumer.items():
        for first in range(0, len(all_), _RUN):
            run = all_[first : first + _RUN]
            arguments += (consumer, len(run))
            arguments += (receipt.message for receipt in run)
            arguments += (str(receipt.token)[:_NONCE] for receipt in run)
    return arguments


class Transport(leased.Transport):
    """Celery's messages in Redis."""

    store_class = RedisStore
    # Not "redis": for that name Celery changes exchanges and flags that have to be as on every broker.
    driver_type = "leased-redis"
    driver_name = "redis-py"
