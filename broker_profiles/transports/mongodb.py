"""The leased store in MongoDB 5 or later, one server or a replica set, and the transport over it.

No step needs a transaction of several documents, which one server alone does not have: each decision is
one write to one document, with what it depends on in its filter.

- A message is taken by writing a fresh claim into it while it is ready; the claim is the token of its
  receipt, so that no receipt fits another delivery. Many are taken by three round trips: look, claim, read.
- A lease has an id of its own, and a message notes that id. Whoever finds that a lease has run out marks
  it as ended, and from then on nobody can extend it; its messages are given back after that, however
  often this is begun. A claim counts only while its lease lasts, by the server's clock.
- Several messages sent at once are stored as one parcel first, so that a sender that dies while unpacking
  it has sent all of them: who renews a lease unpacks what was left.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError

from broker_profiles.errors import StoreError
from broker_profiles.transports import leased
from broker_profiles.transports.mongodb_database import (
    BATCH,
    DEAD,
    DELAYED,
    LARGEST,
    LEASED,
    NOW,
    READY,
    Collections,
    Document,
    Link,
    MongoDBQueues,
    milliseconds,
    some_ids,
    upserted,
)
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, Delivery, Outgoing, Receipt

#: How often `wait` looks, in seconds: at first, and after it has waited in vain for a while.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.05

#: The most characters of a detail that are kept, for a message and its detail share 16 MB.
_DETAIL = 8000

_DUPLICATE_KEY = 11000

_GIVEN_BACK: Document = {"$set": {"state": READY}, "$unset": {"lease": "", "claim": ""}}
_UNCOUNTED: Document = {**_GIVEN_BACK, "$inc": {"deliveries": -1}}


class _Seen(NamedTuple):
    """What one look found."""

    #: The first ready messages of each queue, in order, without their bodies.
    ready: list[Document]
    #: The time, and when the next delayed message is due; None where nothing was found.
    now: int | None
    due: int | None
    #: The lease of the consumer: its id, and when it runs out.
    lease: tuple[Any, int] | None


class MongoDBStore(MongoDBQueues):
    """A `Store` in a MongoDB database; see the interface for what each method promises."""

    system = "mongodb"

    def __init__(self, link: Link, lease_seconds: float, delivery_limit: int) -> None:
        super().__init__(link)
        self._lease = int(lease_seconds * 1000)
        self._delivery_limit = delivery_limit
        self._unanswered = ""

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any]) -> Self:
        """Connect to `mongodb://` or `mongodb+srv://`, creating the indexes where needed."""
        link = Link(url, float(options.get("timeout_seconds", 5.0)))
        try:
            link.prepare()
        except BaseException:
            link.close()
            raise
        return cls(link, float(options.get("lease_seconds", 15.0)), int(options.get("delivery_limit", 5)))

    def clone(self) -> Self:
        """Return a store for another thread, over the same client."""
        return type(self)(self._link.shared(), self._lease / 1000, self._delivery_limit)

    def close(self) -> None:
        """Close the client, unless another thread's store uses it."""
        self._link.close()

    def version(self) -> str:
        """Return the version of the server."""
        return ".".join(map(str, self._link.version()))

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Insert one message, or a parcel of several that is unpacked at once."""
        if sum(len(message.body) for message in messages) > LARGEST:
            size = f"{LARGEST / 2**20:.1f} MB"
            problem = f"no message, nor several that are sent at once, can be larger than {size}"
            raise StoreError(store=str(self._link), problem=problem)
        if not messages:
            return
        with self._link.use() as db:
            documents, now = self._documents(db, messages)
            if len(documents) == 1:
                db.messages.insert_one(documents[0])
                return
            # By then this call has ended, here and at the server.
            due = now + milliseconds(2 * self._link.timeout)
            parcel = db.parcels.insert_one({"due": due, "messages": documents}).inserted_id
            _unpack(db, {"_id": parcel, "messages": documents})

    def _documents(self, db: Collections, messages: Sequence[Outgoing]) -> tuple[list[Document], int]:
        """Return the messages as they are stored, and the time."""
        counts = Counter(message.queue for message in messages)
        numbered = {queue: self._numbered(db, queue, count) for queue, count in counts.items()}
        documents = []
        for message in messages:
            numbers, now, ttl = numbered[message.queue]
            delay = max(0, round(message.delay * 1000))
            document: Document = {
                # The driver's own ids never repeat, and grow, which keeps the index compact.
                "_id": str(ObjectId()),
                "queue": message.queue,
                "state": DELAYED if delay else READY,
                "priority": message.priority,
                "seq": numbers.pop(0),
                "deliveries": 0,
                "body": message.body,
            }
            if delay:
                document["due"] = now + delay
            lives = [] if message.expires is None else [milliseconds(message.expires)]
            lives += [] if ttl is None else [delay + ttl]
            if lives:
                document["expires"] = now + min(lives)
            documents.append(document)
        return documents, now

    # -- consuming --------------------------------------------------------------------------------

    def reserve(
        self,
        consumer: str,
        queues: Sequence[str],
        limit: int,
        acknowledge: Sequence[Receipt] = (),
    ) -> list[Delivery]:
        """Acknowledge, then look, claim and read, until there are enough or nothing is left."""
        found: list[Delivery] = []
        with self._link.use() as db:
            if self._unanswered:
                # Where no answer came, what was claimed without our knowledge goes back.
                db.messages.update_many({"claim": self._unanswered, "state": LEASED}, _UNCOUNTED)
            if acknowledge:
                db.messages.delete_many(_held(acknowledge))
            self._unanswered = claim = str(ObjectId())
            promoted = False
            while (wanted := limit - len(found)) > 0:
                seen = self._look(db, queues, wanted, consumer)
                if not promoted and seen.due is not None and seen.due <= seen.now:
                    promoted = True
                    _promote(db, seen.now)
                    continue
                ready = seen.ready[:wanted]
                if ready:
                    found += self._claim(db, consumer, claim, seen, ready)
                if len(ready) < wanted:
                    break
            self._unanswered = ""
        return found
