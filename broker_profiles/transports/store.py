"""What a leased store is: the interface between the kombu plumbing and one system's storage.

A store keeps opaque bytes. Every method is atomic, runs on the clock of the server (or of the machine
that holds the file), and may be called again after an error. One instance is one connection, used by
one thread at a time; `clone` gives another thread its own.

A *consumer* is one connection of a worker. Its lease covers everything it holds: it is renewed as a
whole, so that renewing costs the same for one message and for a thousand. When it runs out, what the
consumer held is ready again at its old place, and its receipts are worth nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

#: Reasons for which a message is set aside.
DELIVERIES_EXHAUSTED = "deliveries exhausted"
REJECTED = "rejected"
UNREADABLE = "cannot decode"
UNKNOWN_TASK = "unknown task"

#: The bytes of a dead letter that are read, its headers first: it may be as large as the broker takes.
SHOWN = 65_536

#: How many dead letters are in memory at once where all are looked at, or removed in one step.
PAGE = 100

#: For how many seconds a dead letter is kept, and how many a queue keeps, where nobody says otherwise.
KEPT_SECONDS, KEPT = 604_800.0, 10_000


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way into a queue."""

    queue: str
    body: bytes
    #: 0 (least urgent) to 9.
    priority: int = 0
    #: Seconds from now until it may be delivered.
    delay: float = 0.0
    #: Seconds from now after which it is dropped undelivered; None for never.
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of one delivery: settles this delivery of this message, and no other."""

    message: int | str
    #: Differs between any two deliveries of one message.
    token: int | str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message leased to a consumer."""

    queue: str
    body: bytes
    priority: int
    receipt: Receipt
    #: How often it was delivered, this time included; what was put back uncounted is left out.
    deliveries: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many messages a queue holds, by what they wait for."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message set aside, with the reason."""

    id: int | str
    queue: str
    #: No more than the first `SHOWN` bytes.
    body: bytes
    priority: int
    reason: str
    detail: str
    deliveries: int
    #: Seconds since the epoch.
    died_at: float
    #: The bytes of the whole message.
    size: int


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a mark: a short text with a name, which all who use it change from what they last saw.

    So of several who take a step from the same value one alone succeeds, however late the others come.
    """

    name: str
    #: What the mark said when it was read; None where there was none.
    seen: str | None
    #: What it says afterwards; no two steps have the same, so that one taken already is known again.
    value: str


class Store(ABC):
    """One connection to the storage of one system."""

    #: What `driver_type` and messages to users call it.
    system: str

    #: The most dead letters that one call reads by id, replays or discards.
    most_ids: ClassVar[int] = 500

    @classmethod
    @abstractmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Connect, creating what has to be there.

        `options` holds `lease_seconds`, `delivery_limit`, `timeout_seconds` and the system's own.
        Raises `StoreUnavailable` where trying again may help and another `StoreError` where it
        will not, here as in every other method.
        """

    @abstractmethod
    def clone(self) -> Self:
        """Return another connection to the same storage, for another thread."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back; may be called twice."""

    @abstractmethod
    def version(self) -> str:
        """Return the version of the system."""

    # -- messages ---------------------------------------------------------------------------------

    @abstractmethod
    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Store all of these messages durably, or none of them."""

    @abstractmethod
    def reserve(
        self,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt] = (),
    ) -> list[Delivery]:
        """Acknowledge, then lease up to `limit` ready messages, in one step.

        The first of `queues` that has messages gives them, then the next, until there are enough.

        Within a queue: highest priority first, then in the order they were sent. Messages that are
        due join the ready ones first; expired ones are dropped; one delivered `delivery_limit` times
        already is set aside instead.
        """

    @abstractmethod
    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Remove these messages. A receipt that is no longer valid is passed over."""

    @abstractmethod
    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Put these messages back to their old place; `counted` if the delivery counts against them."""

    @abstractmethod
    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        """Make dead letters of these messages."""

    @abstractmethod
    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        """Begin or extend the lease of a consumer and keep `queues`, which it consumes, from expiring.

        Also ends what has run out: leases of other consumers, queues that nobody used. Returns False
        if this consumer's lease had run out, so that what it holds may be held by another.
        """

    @abstractmethod
    def forget(self, consumer: str) -> None:
        """End a consumer: what it still holds is ready again, as after `release` without counting."""

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Return True once a message may be ready in one of `queues`, False after `timeout` seconds."""

    # -- queues and bindings ----------------------------------------------------------------------

    @abstractmethod
    def declare(self, queue: str, *, expires: float | None, message_ttl: float | None) -> None:
        """Make a queue known; seconds unused until it is removed, seconds until its messages are dropped."""

    @abstractmethod
    def exists(self, queue: str) -> bool:
        """Return whether a queue is known."""

    @abstractmethod
    def drop(self, queue: str) -> None:
        """Remove a queue with its messages and bindings."""

    @abstractmethod
    def bind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Bind a queue to an exchange; again is harmless."""

    @abstractmethod
    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Take a binding away."""

    @abstractmethod
    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Return the (routing key, queue) pairs of an exchange."""

    @abstractmethod
    def sizes(self, queue: str) -> Sizes:
        """Return how many messages a queue holds."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove the ready and the delayed messages of a queue; return how many."""

    # -- marks ------------------------------------------------------------------------------------

    @abstractmethod
    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Return what the marks of these names say, leaving out those that are not there."""

    @abstractmethod
    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Take a step of a mark and store these messages, in one step: all of it, or nothing.

        Returns False, having done nothing, where the mark does not say what was seen of it; True where
        this step was taken, now or by a call before this one.
        """

    @abstractmethod
    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note that these marks are in use, and remove those that nobody has used for so many seconds.

        To take a step is to use a mark.
        """

    # -- dead letters -----------------------------------------------------------------------------

    @abstractmethod
    def dead_letters(
        self, queue: str | None = None, limit: int = PAGE, after: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Return the oldest dead letters, of one queue or of all, that come after a given one."""

    def each_dead_letter(self, queue: str | None = None) -> Generator[DeadLetter, None, None]:
        """Yield the dead letters, oldest first, page after page: they may be more than fit into memory."""
        last: DeadLetter | None = None
        while page := self.dead_letters(queue, PAGE, last):
            yield from page
            last = page[-1]

    @abstractmethod
    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Return the dead letters of these ids, oldest first, as far as they are there."""

    @abstractmethod
    def replay(self, ids: Sequence[int | str]) -> int:
        """Put dead letters back into their queues as new messages; return how many.

        Each is a message or a dead letter at every moment, and never both, whoever dies when.
        """

    @abstractmethod
    def expire_dead_letters(self, queues: Sequence[str], seconds: float, kept: int) -> int:
        """Remove dead letters older than that, or the oldest of one of these queues beyond so many.

        A page of them at most, so that who calls this can do something else in between. Returns how many
        were removed; 0 where there are no more.
        """

    @abstractmethod
    def discard(self, ids: Sequence[int | str]) -> int:
        """Remove dead letters for good; return how many."""
