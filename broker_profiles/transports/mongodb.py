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
- What is sent with the step of a mark is stored hidden, and the step says that it counts; who comes upon
  such a step uncovers what is still hidden, however often: what was delivered meanwhile is not there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from bson import ObjectId
from pymongo import ReturnDocument

from broker_profiles.transports import leased, validity
from broker_profiles.transports.mongodb_database import (
    BATCH,
    DEAD,
    DELAYED,
    LEASED,
    NOW,
    READY,
    Collections,
    Document,
    Link,
)
from broker_profiles.transports.mongodb_leases import GIVEN_BACK, UNCOUNTED
from broker_profiles.transports.mongodb_publishing import MongoDBPublishing
from broker_profiles.transports.mongodb_queues import some_ids
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, Delivery, Receipt

#: How often `wait` looks, in seconds: at first, and after it has waited in vain for a while.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.05

#: The most characters of a detail that are kept, for a message and its detail share 16 MB.
_DETAIL = 8000

#: What a look reads of a message: all but its body.
_LOOKED_AT = ("queue", "priority", "seq", "deliveries", "expires")


class _Seen(NamedTuple):
    """What one look found."""

    #: The first ready messages of each queue, in order, without their bodies.
    ready: list[Document]
    #: The time, 0 where nothing was found; when the next delayed message is due.
    now: int
    due: float
    lease: Document | None


class MongoDBStore(MongoDBPublishing):
    """A `Store` in a MongoDB database; see the interface for what each method promises."""

    system = "mongodb"

    def __init__(self, link: Link, lease_seconds: float, delivery_limit: int) -> None:
        super().__init__(link, lease_seconds)
        self._delivery_limit = delivery_limit
        #: Claims of which we do not know what they took: the lease, and when they cannot come any more.
        self._unanswered: dict[str, tuple[ObjectId, float]] = {}

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
        claim = str(ObjectId())
        promoted = False
        with self._link.use() as db:
            if acknowledge:
                db.messages.delete_many(_held(acknowledge))
            while (wanted := limit - len(found)) > 0:
                seen = self._look(db, queues, wanted, consumer)
                if self._gave_back_unanswered(db, claim, seen.now):
                    continue
                if not promoted and seen.due <= seen.now:
                    promoted = True
                    _promote(db, seen.now)
                    continue
                if seen.ready:
                    found += self._claim(db, consumer, claim, seen)
                if len(seen.ready) < wanted:
                    break
        self._unanswered.pop(claim, None)
        return found

    def _look(self, db: Collections, queues: Sequence[str], limit: int, consumer: str | None = None) -> _Seen:
        pipeline: list[Document] = [
            {"$match": {"state": DELAYED, "due": {"$gt": 0}}},
            {"$sort": {"due": 1}},
            {"$limit": 1},
            {"$project": {"_id": 0, "due": 1, "now": NOW}},
        ]
        turns = {queue: turn for turn, queue in enumerate(dict.fromkeys(queues))}
        for queue in turns:
            first: list[Document] = [
                {"$match": {"queue": queue, "state": READY}},
                {"$sort": {"priority": -1, "seq": 1}},
                {"$limit": limit},
                {"$project": {"now": NOW, **dict.fromkeys(_LOOKED_AT, 1)}},
            ]
            pipeline.append({"$unionWith": {"coll": db.messages.name, "pipeline": first}})
        if consumer is not None:
            own: list[Document] = [
                {"$match": {"consumer": consumer, "ended": False}},
                {"$project": {"until": 1, "now": NOW}},
            ]
            pipeline.append({"$unionWith": {"coll": db.leases.name, "pipeline": own}})
        ready, due, now, lease = [], float("inf"), 0, None
        for row in db.messages.aggregate(pipeline, batchSize=BATCH):
            now = row["now"]
            if "queue" in row:
                ready.append(row)
            elif "due" in row:
                due = row["due"]
            else:
                lease = row
        ready.sort(key=lambda row: (turns[row["queue"]], -row["priority"], row["seq"]))
        return _Seen(ready[:limit], now, due, lease)

    def _claim(self, db: Collections, consumer: str, claim: str, seen: _Seen) -> list[Delivery]:
        """Lease what was seen and is still ready; see to what is not to be delivered any more."""
        ready = {row["_id"]: row for row in seen.ready}
        expired = [id_ for id_, row in ready.items() if row.get("expires", seen.now + 1) <= seen.now]
        spent = [id_ for id_, row in ready.items() if row["deliveries"] >= self._delivery_limit]
        if expired:
            query = {"_id": {"$in": expired}, "state": READY, "expires": {"$lte": seen.now}}
            db.messages.delete_many(query)
        if spent:
            detail = {"$concat": ["delivered ", {"$toString": "$deliveries"}, " times and never finished"]}
            at_limit = {"$gte": self._delivery_limit}
            query = {"_id": {"$in": spent}, "state": READY, "deliveries": at_limit}
            db.messages.update_many(query, _buried(DELIVERIES_EXHAUSTED, detail))
        ids = [id_ for id_ in ready if id_ not in expired and id_ not in spent]
        if not ids:
            return []
        lease = seen.lease
        if lease is None or lease["until"] - seen.now < self._lease / 2:
            lease = self._extended(db, consumer)
        # A claim that the server comes to later than that is one that nobody waits for, or without a lease.
        ends = min(lease["until"], seen.now + self._timeout)
        self._unanswered[claim] = lease["_id"], ends + self._timeout
        query = {"_id": {"$in": ids}, "state": READY, "$expr": {"$lt": [NOW, ends]}}
        update = {
            "$set": {"state": LEASED, "lease": lease["_id"], "claim": claim},
            "$inc": {"deliveries": 1},
        }
        if len(ids) == 1:
            one = db.messages.find_one_and_update(query, update, return_document=ReturnDocument.AFTER)
            taken = [one] if one else []
        elif db.messages.update_many(query, update).modified_count:
            taken = list(db.messages.find({"_id": {"$in": ids}, "claim": claim}, batch_size=len(ids)))
        else:
            taken = []
        by_id = {message["_id"]: message for message in taken}
        return [
            Delivery(each["queue"], each["body"], each["priority"], Receipt(id_, claim), each["deliveries"])
            for id_, each in ((id_, by_id[id_]) for id_ in ids if id_ in by_id)
        ]

    def _gave_back_unanswered(self, db: Collections, current: str, now: int) -> int:
        """Give back what was claimed by calls that failed, until none of their claims can still come."""
        given_back = 0
        for claim, (lease, ends) in list(self._unanswered.items()):
            if claim != current:
                query = {"lease": lease, "state": LEASED, "claim": claim}
                given_back += db.messages.update_many(query, UNCOUNTED).modified_count
                if ends < now:
                    del self._unanswered[claim]
        return given_back

    # -- settling ---------------------------------------------------------------------------------

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Delete the messages that are still held by these receipts."""
        if receipts:
            with self._link.use() as db:
                db.messages.delete_many(_held(receipts))

    def release(self, receipts: Sequence[Receipt], *, counted: bool) -> None:
        """Make the messages ready again; their numbers, and so their places, stay."""
        if receipts:
            with self._link.use() as db:
                db.messages.update_many(_held(receipts), GIVEN_BACK if counted else UNCOUNTED)

    def set_aside(self, receipts: Sequence[Receipt], reason: str, detail: str = "") -> None:
        """Make dead letters of the messages where they are."""
        detail = validity.storable(detail[:_DETAIL])
        if receipts:
            with self._link.use() as db:
                db.messages.update_many(_held(receipts), _buried(reason, {"$literal": detail}))

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """Look, less and less often while nothing happens."""
        deadline = time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            with self._link.use() as db:
                seen = self._look(db, queues, 1)
            if seen.ready or seen.due <= seen.now:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left, (seen.due - seen.now) / 1000))
            pause = min(pause * 1.2, _LAST_LOOK)


def _held(receipts: Sequence[Receipt]) -> Document:
    """Return the query for what these receipts still hold."""
    by_claim: dict[int | str, list[int | str]] = {}
    for receipt in receipts:
        by_claim.setdefault(receipt.token, []).append(receipt.message)
    either = [{"_id": {"$in": ids}, "claim": claim} for claim, ids in by_claim.items()]
    return {"state": LEASED, "$or": either}


def _buried(reason: str, detail: Document) -> list[Document]:
    """Return the update that makes a dead letter of a message."""
    fields = {"state": DEAD, "reason": {"$literal": reason}, "detail": detail, "died_at": NOW}
    return [{"$set": fields}, {"$unset": ["lease", "claim", "expires"]}]


def _promote(db: Collections, now: int) -> None:
    """Make ready what is due, so many at a time that it is done in time."""
    due = {"state": DELAYED, "due": {"$lte": now}}
    ids = some_ids(db.messages, due)
    db.messages.update_many({**due, "_id": {"$in": ids}}, {"$set": {"state": READY}, "$unset": {"due": ""}})


class Transport(leased.Transport):
    """Celery's messages in MongoDB."""

    store_class = MongoDBStore
    # Not "mongodb": for the names of kombu's own transports Celery changes what has to be as on every broker.
    driver_type = "leased-mongodb"
    driver_name = "pymongo"
