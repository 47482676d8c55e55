"""Celery's results in MongoDB, which expire by themselves and wait for a server that is away.

A document says itself until when it is kept, by the server's clock. MongoDB removes it some time later by a
TTL index; whoever stores results helps, now and then, for not every server of its protocol does so; and
whoever reads leaves out what has expired.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from celery import states
from celery.backends import mongodb
from celery.result import GroupResult
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure

from broker_profiles.results.chords import SaysUnfinished
from broker_profiles.results.kept import Kept, Page, Wanted, page_of, text
from broker_profiles.results.removal import BATCH, Removal, remove_all
from broker_profiles.results.waiting import BoundedWait

Document = dict[str, Any]

#: A field of our own: Celery's `date_done` has an index that cannot become a TTL index while others use it,
#: and no value before a task has finished.
_UNTIL = "expires_at"

# As numbers: not every server of this protocol compares dates in an expression.
_STILL_KEPT = {"$gt": [{"$toLong": f"${_UNTIL}"}, {"$toLong": "$$NOW"}]}
_LIVING = {"$or": [{_UNTIL: None}, {"$expr": _STILL_KEPT}]}

#: How much longer a document is kept that does not say until when, in days: others' clocks wrote its time.
_MARGIN = 1


class Expiring:
    """A collection as Celery's backend uses it, whose documents expire."""

    def __init__(self, collection: Collection[Document], seconds: float) -> None:
        self._collection = collection
        self._seconds = seconds
        self._kept = {_UNTIL: {"$add": ["$$NOW", round(1000 * seconds)]}} if seconds else {}
        collection.create_index(_UNTIL, expireAfterSeconds=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find_one(self, query: Document) -> Document | None:
        """Return a document that has not expired."""
        return self._collection.find_one({**query, **_LIVING})

    def replace_one(self, query: Document, document: Document, *, upsert: bool) -> None:
        """Replace a document; one that is kept and that Celery's query leaves out stays as it is.

        That is a result of success, which no other state of the task replaces.
        """
        # A pipeline, for there alone is the server's time; and MongoDB takes no `$expr` in what an upsert
        # looks for.
        new: Document = {"$mergeObjects": [{"$literal": document}, self._kept]}
        if query.get("status"):
            forever = {"$eq": [{"$ifNull": [f"${_UNTIL}", None]}, None]}
            is_kept = {"$and": [{"$eq": ["$status", states.SUCCESS]}, {"$or": [forever, _STILL_KEPT]}]}
            new = {"$cond": [is_kept, "$$ROOT", new]}
        self._collection.update_one({"_id": query["_id"]}, [{"$replaceWith": new}], upsert=upsert)

    def now(self) -> datetime:
        """Return the server's time, in UTC."""
        found: datetime = self._collection.database.client.admin.command("hello")["localTime"]
        return found

    def living(self, query: Document, limit: int) -> list[Document]:
        """Return documents that have not expired, by their ids."""
        return list(self._collection.find({"$and": [query, _LIVING]}).sort("_id", 1).limit(limit))

    def remove_expired(self) -> int:
        """Remove some of the documents that have expired; return how many."""
        now = self.now()
        old: Document = {_UNTIL: {"$lte": now}}
        if self._seconds:
            # Of a worker that stores as Celery does, or from before.
            done = now - timedelta(seconds=self._seconds, days=_MARGIN)
            old = {"$or": [old, {_UNTIL: None, "date_done": {"$lt": done}}]}
        ids = [found["_id"] for found in self._collection.find(old, {"_id": 1}).limit(BATCH)]
        if ids:
            self._collection.delete_many({"$and": [{"_id": {"$in": ids}}, old]})
        return len(ids)


class MongoBackend(SaysUnfinished, BoundedWait, mongodb.MongoBackend):  # type: ignore[misc]
    """A result backend whose results expire, that tries again, and restores what it has saved."""

    supports_autoexpire = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._removal = Removal(self.expires)

    @cached_property
    def collection(self) -> Expiring:
        """The results of tasks."""
        return Expiring(self.database[self.taskmeta_collection], self.expires or 0)

    @cached_property
    def group_collection(self) -> Expiring:
        """The groups that were saved."""
        return Expiring(self.database[self.groupmeta_collection], self.expires or 0)

    def close(self) -> None:
        """Close the connection for good, which Celery never does."""
        if self._connection is not None:
            self._connection.close()

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether trying again may help; Celery's says never, and drops the result."""
        return isinstance(exc, ConnectionFailure)

    def _store_result(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._store_result(*args, **kwargs)
        self._removal.after_storing(self.collection.remove_expired)
        return result

    def _save_group(self, group_id: str, result: Any) -> Any:
        saved = super()._save_group(group_id, result)
        self._removal.after_storing(self.group_collection.remove_expired)
        return saved

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        """Return a saved group with its result; Celery's has a list in its place."""
        meta = super()._restore_group(group_id)
        if meta is None:
            return None
        restored: dict[str, Any] = {**meta, "result": GroupResult(group_id, meta["result"], app=self.app)}
        return restored

    # -- what is kept -----------------------------------------------------------------------------

    def key_of(self, task_id: str) -> str:
        """Return the collection and the id of a task's result."""
        return f"{self.taskmeta_collection}, _id = {task_id}"

    def kept(self, task_id: str) -> Kept | None:
        """Return what is stored of a task."""
        documents = self.collection.living({"_id": task_id}, 1)
        return self._as_kept(documents[0], self.collection.now()) if documents else None

    def page(self, wanted: Wanted) -> Page:
        """Return the results that are wanted, by their ids; `after` is the last id of the page before."""
        return page_of(self._entries(wanted), wanted)

    def purge(self, *, everything: bool) -> int:
        """Remove what has expired, or all results and groups; return how many that were."""
        removed = 0
        for collection in (self.collection, self.group_collection):
            if everything:
                removed += collection.delete_many({}).deleted_count
            else:
                removed += remove_all(collection.remove_expired)
        return removed

    def _entries(self, wanted: Wanted) -> Iterator[tuple[str, Kept | None]]:
        only = {"status": wanted.state} if wanted.state else {}
        after, now = wanted.after, self.collection.now()
        while documents := self.collection.living({"_id": {"$gt": after}, **only}, BATCH):
            yield from ((document["_id"], self._as_kept(document, now)) for document in documents)
            after = documents[-1]["_id"]

    def _as_kept(self, document: Document, now: datetime) -> Kept:
        done, until = document.get("date_done"), document.get(_UNTIL)
        return Kept(
            id=document["_id"],
            key=self.key_of(document["_id"]),
            state=document["status"],
            value=text(document["result"]),
            traceback=document.get("traceback"),
            task=document.get("name"),
            age=(now - done).total_seconds() if done else None,
            ttl=(until - now).total_seconds() if until else None,
        )

    def cleanup(self) -> None:
        """Remove everything that has expired; `celery beat` may call it, and need not."""
        self.purge(everything=False)
