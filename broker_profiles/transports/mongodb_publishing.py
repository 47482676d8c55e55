"""Storing messages in MongoDB: one, several as a parcel, or hidden until a step of a mark says they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from broker_profiles.errors import StoreError
from broker_profiles.transports.mongodb_database import (
    DELAYED,
    HIDDEN,
    LARGEST,
    NOW,
    READY,
    Collections,
    Document,
)
from broker_profiles.transports.mongodb_leases import MongoDBLeases, unpack
from broker_profiles.transports.mongodb_queues import milliseconds
from broker_profiles.transports.store import Outgoing, Step

#: How long hidden messages are kept of which no step tells, in milliseconds: far longer than one takes.
_HIDDEN_FOR = 3_600_000


class MongoDBPublishing(MongoDBLeases):
    """The part of a `Store` that stores messages; see the interface for what each method promises."""

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Insert one message, or a parcel of several that is unpacked at once."""
        self._check_size(messages)
        if not messages:
            return
        with self._link.use() as db:
            documents, now = self._documents(db, messages)
            if len(documents) == 1:
                db.messages.insert_one(documents[0])
                return
            # By then this call has ended, here and at the server.
            due = now + 2 * self._timeout
            parcel = db.parcels.insert_one({"due": due, "messages": documents}).inserted_id
            unpack(db, {"_id": parcel, "messages": documents})

    def _check_size(self, messages: Sequence[Outgoing]) -> None:
        if sum(len(message.body) for message in messages) > LARGEST:
            size = f"{LARGEST / 2**20:.1f} MB"
            problem = f"no message, nor several that are sent at once, can be larger than {size}"
            raise StoreError(store=str(self._link), problem=problem)

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
            lives = [milliseconds(message.expires), None if ttl is None else delay + ttl]
            life = min((each for each in lives if each is not None), default=None)
            if life is not None:
                document["expires"] = now + life
            documents.append(document)
        return documents, now

    # -- marks ------------------------------------------------------------------------------------

    def marks(self, names: Sequence[str]) -> dict[str, str]:
        """Read the marks, finishing what others began."""
        with self._link.use() as db:
            found = list(db.marks.find({"_id": {"$in": list(names)}}))
            for mark in found:
                _finish(db, mark)
            return {mark["_id"]: mark["value"] for mark in found}

    def advance(self, step: Step, messages: Sequence[Outgoing] = ()) -> bool:
        """Store the messages hidden, change the mark if it says what was seen, then uncover them."""
        self._check_size(messages)
        with self._link.use() as db:
            mark = _finished(db, step.name)
            if mark.get("value") != step.seen:
                return bool(mark.get("value") == step.value)
            documents, now = self._documents(db, messages) if messages else ([], 0)
            for document in documents:
                document.update(state=HIDDEN, state_then=document["state"], hidden=now)
            if documents:
                db.messages.insert_many(documents)
            ids = [document["_id"] for document in documents]
            if _stepped(db, step, ids):
                _finished(db, step.name)
                return True
            db.messages.delete_many({"_id": {"$in": ids}, "state": HIDDEN})
            return False

    def keep_marks(self, names: Sequence[str], seconds: float) -> None:
        """Note the time, delete the marks that have an older one, and what was hidden and forgotten."""
        with self._link.use() as db:
            db.marks.update_many({"_id": {"$in": list(names)}}, [{"$set": {"used_at": NOW}}])
            for mark in list(db.marks.find({"hidden": {"$ne": []}})):
                _finish(db, mark)
            db.messages.delete_many({"state": HIDDEN, "hidden": {"$gt": 0}, **_older("hidden", _HIDDEN_FOR)})
            db.marks.delete_many(_older("used_at", int(seconds * 1000)))


def _stepped(db: Collections, step: Step, ids: Sequence[str]) -> bool:
    """Change a mark that says what was seen of it, and has nothing to finish; return whether it did."""
    query: Document = {"_id": step.name, "value": step.seen, "hidden.0": {"$exists": False}}
    fields = {"value": {"$literal": step.value}, "hidden": {"$literal": list(ids)}, "used_at": NOW}
    try:
        stepped = db.marks.update_one(query, [{"$set": fields}], upsert=step.seen is None)
    except DuplicateKeyError:
        return False
    return bool(stepped.matched_count or stepped.upserted_id is not None)


def _finished(db: Collections, name: str) -> Document:
    """Return a mark with nothing to finish; empty where there is none."""
    mark = db.marks.find_one({"_id": name}) or {}
    _finish(db, mark)
    return mark


def _finish(db: Collections, mark: Document) -> None:
    """Uncover what was sent with the last step of a mark; what is no longer hidden stays as it is."""
    ids = mark.get("hidden")
    if ids:
        uncovered: list[Document] = [{"$set": {"state": "$state_then"}}, {"$unset": ["state_then", "hidden"]}]
        db.messages.update_many({"_id": {"$in": ids}, "state": HIDDEN}, uncovered)
        db.marks.update_one({"_id": mark["_id"], "value": mark["value"]}, {"$set": {"hidden": []}})


def _older(field: str, milliseconds: int) -> Document:
    return {"$expr": {"$lte": [f"${field}", {"$subtract": [NOW, milliseconds]}]}}
