"""Queues, bindings and dead letters of the MongoDB store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import (
    DuplicateKeyError,
)

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
from broker_profiles.transports.store import PAGE, SHOWN, DeadLetter, Sizes, Store


class MongoDBQueues(Store):
    """Queues, bindings and dead letters in a MongoDB database."""

    def __init__(self, link: Link) -> None:
        self._link = link

    # -- queues and bindings ----------------------------------------------------------------------

    def declare(self, queue: str, *, expires: float | None, message_ttl: float | None) -> None:
        """Insert the queue, or note that it is in use; what it was declared with first stays."""
        first = {"expires": milliseconds(expires), "message_ttl": milliseconds(message_ttl)}
        with self._link.use() as db:
            wanted = {"$currentDate": {"used_at": True}, "$unset": {"dropping": ""}}
            upserted(db.queues, {"_id": queue}, {"$setOnInsert": first, **wanted})

    def exists(self, queue: str) -> bool:
        """Return whether the queue is known."""
        with self._link.use() as db:
            return db.queues.find_one({"_id": queue}, {"_id": 1}) is not None

    def drop(self, queue: str) -> None:
        """Remove the queue, its messages and its bindings; its dead letters stay."""
        self._drop(queue, {})

    def _drop_unused(self) -> None:
        """Remove the queues that nobody has used for the time they were declared with."""
        end = {"$add": [{"$toLong": "$used_at"}, "$expires"]}
        unused = {"expires": {"$gt": 0}, "$expr": {"$lte": [end, NOW]}}
        with self._link.use() as db:
            names = [queue["_id"] for queue in db.queues.find(unused, {"_id": 1})]
        for name in names:
            self._drop(name, unused)

    def _drop(self, queue: str, condition: Mapping[str, Any]) -> None:
        """Remove a queue for which a condition holds.

        The queue itself goes last, so that who finds this half done does it again. What was bound and
        sent after the mark belongs to a queue that was declared again meanwhile, and stays.
        """
        mark = ObjectId()
        with self._link.use() as db:
            bound = [binding["nonce"] for binding in db.bindings.find({"queue": queue}, {"nonce": 1})]
            marked = db.queues.find_one_and_update(
                {"_id": queue, **condition},
                {"$set": {"dropping": mark}},
                return_document=ReturnDocument.AFTER,
            )
            if marked is None and condition:
                return
            db.bindings.delete_many({"queue": queue, "nonce": {"$in": bound}})
        sent = {"$lte": (marked or {}).get("seq", 0)}
        self._remove({"queue": queue, "state": {"$in": [READY, DELAYED, LEASED]}, "seq": sent})
        with self._link.use() as db:
            db.queues.delete_one({"_id": queue, "dropping": mark, **condition})

    def _remove(self, query: Document) -> int:
        """Delete messages, a batch at a time, for each has to be done in time; return how many."""
        removed = 0
        while True:
            with self._link.use() as db:
                ids = some_ids(db.messages, query)
                if ids:
                    removed += db.messages.delete_many({**query, "_id": {"$in": ids}}).deleted_count
            if len(ids) < BATCH:
                return removed

    def bind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Insert the binding, or say anew that it is wanted."""
        binding = {"exchange": exchange, "routing_key": routing_key, "queue": queue}
        with self._link.use() as db:
            upserted(db.bindings, binding, {"$set": {"nonce": ObjectId()}})

    def unbind(self, exchange: str, routing_key: str, queue: str) -> None:
        """Delete the binding."""
        with self._link.use() as db:
            db.bindings.delete_one({"exchange": exchange, "routing_key": routing_key, "queue": queue})

    def bindings(self, exchange: str) -> list[tuple[str, str]]:
        """Return the bindings of the exchange."""
        with self._link.use() as db:
            found = db.bindings.find({"exchange": exchange}, {"routing_key": 1, "queue": 1})
            return [(binding["routing_key"], binding["queue"]) for binding in found]

    def sizes(self, queue: str) -> Sizes:
        """Count the messages of the queue by state, in the index."""
        by_state: list[Document] = [
            {"$match": {"queue": queue}},
            {"$group": {"_id": "$state", "count": {"$sum": 1}}},
        ]
        with self._link.use() as db:
            counts = {row["_id"]: row["count"] for row in db.messages.aggregate(by_state)}
        return Sizes(*(counts.get(state, 0) for state in (READY, DELAYED, LEASED, DEAD)))

    def purge(self, queue: str) -> int:
        """Delete what nobody holds."""
        return self._remove({"queue": queue, "state": {"$in": [READY, DELAYED]}})

    def _numbered(self, db: Collections, queue: str, count: int) -> tuple[list[int], int, int | None]:
        """Return the next numbers of a queue, the time, and when its messages would expire if sent now.

        Makes the queue known. Numbers begin with the time, so that a queue that is made again goes on
        above those it had.
        """
        last = {"$add": [{"$ifNull": ["$seq", {"$multiply": [NOW, 1000]}]}, count]}
        found = upserted(db.numbers, {"_id": queue}, [{"$set": {"seq": last, "sent_at": NOW}}])
        end, now, ttl = int(found["seq"]), int(found["sent_at"]), found.get("message_ttl")
        return list(range(end - count + 1, end + 1)), now, None if ttl is None else int(ttl)

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(
        self, queue: str | None = None, limit: int = PAGE, after: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Return the oldest dead letters; of those that died at once, in the order of their ids."""
        query: Document = {} if queue is None else {"queue": queue}
        if after is not None:
            died_at = round(after.died_at * 1000)
            same = {"died_at": died_at, "_id": {"$gt": after.id}}
            query["$or"] = [{"died_at": {"$gt": died_at}}, same]
        return self._dead_letters(query, limit)

    def find_dead_letters(self, ids: Sequence[int | str]) -> list[DeadLetter]:
        """Look dead letters up."""
        return self._dead_letters({"_id": {"$in": [str(id_) for id_ in ids]}}, len(ids)) if ids else []

    def _dead_letters(self, query: Document, limit: int) -> list[DeadLetter]:
        with self._link.use() as db:
            dead = db.messages.find({"state": DEAD, **query})
            return [
                DeadLetter(
                    letter["_id"],
                    letter["queue"],
                    letter["body"][:SHOWN],
                    letter["priority"],
                    letter["reason"],
                    letter["detail"],
                    letter["deliveries"],
                    letter["died_at"] / 1000,
                    len(letter["body"]),
                )
                for letter in dead.sort([("died_at", 1), ("_id", 1)]).limit(limit)
            ]

    def replay(self, ids: Sequence[int | str]) -> int:
        """Make ready messages of the dead letters, each in one write, with new numbers."""
        query = {"_id": {"$in": [str(id_) for id_ in ids]}, "state": DEAD}
        with self._link.use() as db:
            by_queue: dict[str, list[str]] = {}
            for letter in db.messages.find(query, {"queue": 1}).sort("seq", 1):
                by_queue.setdefault(letter["queue"], []).append(letter["_id"])
            writes = []
            for queue, letters in by_queue.items():
                numbers, now, ttl = self._numbered(db, queue, len(letters))
                for id_, seq in zip(letters, numbers, strict=True):
                    alive: Document = {"state": READY, "seq": seq, "deliveries": 0}
                    if ttl is not None:
                        alive["expires"] = now + ttl
                    gone = {"reason": "", "detail": "", "died_at": ""}
                    writes.append(UpdateOne({"_id": id_, "state": DEAD}, {"$set": alive, "$unset": gone}))
            return db.messages.bulk_write(writes, ordered=False).modified_count if writes else 0

    def expire_dead_letters(self, queues: Sequence[str], seconds: float, kept: int) -> int:
        """Delete the first page of them that is found."""
        time: list[Document] = [{"$match": {"state": DEAD}}, {"$limit": 1}, {"$project": {"now": NOW}}]
        with self._link.use() as db:
            now = next(iter(db.messages.aggregate(time)), {}).get("now")
        if now is None:
            return 0
        with self._link.use() as db:
            old = _oldest_dead(db, {"died_at": {"$lt": now - int(seconds * 1000)}})
        removed = self.discard(old) if old else 0
        for queue in queues:
            removed = removed or self._discard_beyond(queue, kept)
        return removed

    def _discard_beyond(self, queue: str, kept: int) -> int:
        """Delete some of the oldest that are more than a queue keeps."""
        all_of_it = {"state": DEAD, "queue": queue}
        with self._link.use() as db:
            if db.messages.count_documents(all_of_it) <= kept:
                return 0
            oldest = _oldest_dead(db, {"queue": queue})
            # Counted once more, after looking: what another has removed before is not taken twice for one
            # too many, and what it removes after this is no younger than what is removed here.
            beyond = db.messages.count_documents(all_of_it) - kept
        return self.discard(oldest[:beyond]) if beyond > 0 else 0

    def discard(self, ids: Sequence[int | str]) -> int:
        """Delete dead letters."""
        query = {"_id": {"$in": [str(id_) for id_ in ids]}, "state": DEAD}
        with self._link.use() as db:
            return db.messages.delete_many(query).deleted_count


def _oldest_dead(db: Collections, query: Document) -> list[str]:
    """Return the ids of a page of dead letters, the oldest first."""
    oldest = db.messages.find({"state": DEAD, **query}, {"_id": 1}).sort([("died_at", 1), ("_id", 1)])
    return [letter["_id"] for letter in oldest.limit(PAGE)]


def upserted(collection: Collection[Document], query: Document, update: Any) -> Document:
    """Change the document, or make it; return it as it is then."""
    after = ReturnDocument.AFTER
    found = None
    with contextlib.suppress(DuplicateKeyError):
        found = collection.find_one_and_update(query, update, upsert=True, return_document=after)
    # Where another made it at the same moment it is there now; not every server says so by that error.
    return found or collection.find_one_and_update(query, update, upsert=True, return_document=after) or {}


def some_ids(messages: Collection[Document], query: Document) -> list[str]:
    """Return the ids of up to `BATCH` messages."""
    return [found["_id"] for found in messages.find(query, {"_id": 1}, batch_size=BATCH).limit(BATCH)]


def milliseconds(seconds: float | None) -> int | None:
    """Return seconds as MongoDB adds them to a time."""
    return None if seconds is None else int(seconds * 1000)
