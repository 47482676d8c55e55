"""The leases of consumers in MongoDB, and what whoever renews one sees to for those who are gone."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.errors import BulkWriteError

from broker_profiles.transports.mongodb_database import (
    DELAYED,
    LEASED,
    NOW,
    READY,
    Collections,
    Document,
    Link,
)
from broker_profiles.transports.mongodb_queues import MongoDBQueues, some_ids, upserted

#: Updates that make a leased message ready again; the delivery counts, or it does not.
GIVEN_BACK: Document = {"$set": {"state": READY}, "$unset": {"lease": "", "claim": ""}}
UNCOUNTED: Document = {**GIVEN_BACK, "$inc": {"deliveries": -1}}

_DUPLICATE_KEY = 11000


class MongoDBLeases(MongoDBQueues):
    """The part of a `Store` that is about leases; see the interface for what each method promises."""

    def __init__(self, link: Link, lease_seconds: float) -> None:
        super().__init__(link)
        self._lease = int(lease_seconds * 1000)
        self._timeout = round(link.timeout * 1000)

    def renew(self, consumer: str, queues: Sequence[str]) -> bool:
        """Extend the lease first, then end what has run out, each part in its own time.

        Where no consumer has renewed for half a lease, the server was down rather than all the workers
        at once; every lease then gets half a lease more. One that nobody has ended yet goes on.
        """
        with self._link.use() as db:
            leases = list(db.leases.aggregate([{"$addFields": {"now": NOW}}]))
            silent = all(lease["now"] - lease["renewed"] > self._lease / 2 for lease in leases)
            if leases and silent:
                more = {"renewed": NOW, "until": {"$add": [NOW, self._lease // 2]}}
                db.leases.update_many({"ended": False}, [{"$set": more}])
            own = self._extended(db, consumer)
            used = {"_id": {"$in": list(queues)}, "expires": {"$gt": 0}}
            db.numbers.update_many(used, {"$currentDate": {"used_at": True}})
        if any(lease["ended"] or lease["until"] <= lease["now"] for lease in leases):
            self._end_leases()
        self._drop_unused()
        with self._link.use() as db:
            expired = {"expires": {"$lte": own["renewed"]}, "state": {"$in": [READY, DELAYED]}}
            if ids := some_ids(db.messages, expired):
                db.messages.delete_many({**expired, "_id": {"$in": ids}})
            for parcel in db.parcels.find({"due": {"$lte": own["renewed"]}}):
                unpack(db, parcel)
        return bool(own["times"] > 1)

    def _extended(self, db: Collections, consumer: str) -> Document:
        """Extend the lease of a consumer, or begin one; return it."""
        times = {"$add": [{"$ifNull": ["$times", 0]}, 1]}
        fields = {"renewed": NOW, "until": {"$add": [NOW, self._lease]}, "times": times}
        return upserted(db.leases, {"consumer": consumer, "ended": False}, [{"$set": fields}])

    def _end_leases(self) -> None:
        """Mark the leases that have run out, give back what they hold, and only then forget them.

        They are kept for a while, for a claim that began before the end may come after it.
        """
        with self._link.use() as db:
            run_out = {"ended": False, "$expr": {"$lte": ["$until", NOW]}}
            db.leases.update_many(run_out, {"$set": {"ended": True}})
            for lease in db.leases.aggregate([{"$match": {"ended": True}}, {"$addFields": {"now": NOW}}]):
                db.messages.update_many({"lease": lease["_id"], "state": LEASED}, GIVEN_BACK)
                if lease["until"] + 2 * self._timeout < lease["now"]:
                    db.leases.delete_one({"_id": lease["_id"]})

    def forget(self, consumer: str) -> None:
        """End the lease now and give back what the consumer holds, uncounted."""
        with self._link.use() as db:
            query, ended = {"consumer": consumer, "ended": False}, {"ended": True, "until": NOW}
            lease = db.leases.find_one_and_update(query, [{"$set": ended}])
            if lease is not None:
                db.messages.update_many({"lease": lease["_id"], "state": LEASED}, UNCOUNTED)


def unpack(db: Collections, parcel: Document) -> None:
    """Insert the messages of a parcel that are not there yet, then remove it."""
    try:
        db.messages.insert_many(parcel["messages"], ordered=False)
    except BulkWriteError as error:
        if any(each.get("code") != _DUPLICATE_KEY for each in (error.details or {})["writeErrors"]):
            raise
    db.parcels.delete_one({"_id": parcel["_id"]})
