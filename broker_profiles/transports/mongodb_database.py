"""The MongoDB database of a store: connection, forks, errors in our words; queues, bindings, dead letters.

What a message waits for is its `state`. A dead letter is a message too, so that setting it aside and
replaying it change one document, and there is no moment at which it could be lost or be there twice.
Times are milliseconds since the epoch, on the server's clock, but for `used_at`.

Everything that matters is written to the journals of a majority (of the one server, where it is alone).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pymongo
from bson import ObjectId
from pymongo import IndexModel, MongoClient, ReadPreference, ReturnDocument, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable, redact
from broker_profiles.transports.forks import forks
from broker_profiles.transports.store import DeadLetter, Sizes, Store

Document = dict[str, Any]

PREFIX = "broker_profiles_"
READY, DELAYED, LEASED, DEAD = 0, 1, 2, 3

#: The server's time in an expression; the same within a command.
NOW = {"$toLong": "$$NOW"}

#: The largest body: a document has 16 MiB, and a message needs room for what is noted beside its body.
LARGEST = (16 * 1024 - 64) * 1024

#: The most messages that one step of clearing up touches.
BATCH = 1000

_OLDEST = [5, 0]

_DENIED_CODES = frozenset([11, 13, 18])
_FULL_CODES = frozenset([14031])
_FULL_WORDS = ("No space left", "space quota")
_TRY_AGAIN_CODES = frozenset([50, 64, 91, 189, 262, 11600, 11602])
_TOO_LARGE_CODES = frozenset([10334, 17419, 17420])

#: What pymongo says where it means that a server does not answer.
_PLAINER = dict.fromkeys(["operation cancelled", "No servers found yet"], "it does not answer")

# Clients inherited over a fork: closing one in the child, or letting the garbage collector do so, would
# say goodbye to the server in the name of the parent.
_inherited: list[Any] = []


class Collections:
    """The collections of a store."""

    def __init__(self, client: MongoClient[Document]) -> None:
        database = client.get_default_database("celery").with_options(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("local"),
            write_concern=WriteConcern(w="majority", j=True),
        )
        self.messages: Collection[Document] = database[f"{PREFIX}messages"]
        self.queues: Collection[Document] = database[f"{PREFIX}queues"]
        self.leases: Collection[Document] = database[f"{PREFIX}leases"]
        self.bindings: Collection[Document] = database[f"{PREFIX}bindings"]
        self.parcels: Collection[Document] = database[f"{PREFIX}parcels"]
        # What is written next waits for the journal, and the journal is in order: nothing is gained by
        # waiting for this one too.
        self.numbers = self.queues.with_options(write_concern=WriteConcern(w=1))

    def create_indexes(self) -> None:
        """Create the indexes that are not there."""
        self.messages.create_indexes(
            [
                IndexModel([("queue", 1), ("state", 1), ("priority", -1), ("seq", 1)]),
                IndexModel("due", partialFilterExpression={"state": DELAYED}),
                IndexModel("lease", partialFilterExpression={"state": LEASED}),
                IndexModel([("died_at", 1), ("seq", 1)], partialFilterExpression={"state": DEAD}),
                IndexModel("expires", sparse=True),
            ]
        )
        self.leases.create_index("consumer", unique=True, partialFilterExpression={"ended": False})
        whole = IndexModel([("exchange", 1), ("routing_key", 1), ("queue", 1)], unique=True)
        self.bindings.create_indexes([whole, IndexModel("queue")])
        self.parcels.create_index("due")


class Link:
    """One client for several stores of this process; opened when needed, and anew after a fork."""

    def __init__(self, url: str, timeout: float) -> None:
        self._name = "MongoDB"
        with self._address_checked():
            parts = urlsplit(url)
            if "@" in parts.path + parts.query:
                raise ValueError("its user and password have to be percent-encoded")
            if parts.scheme != "mongodb+srv":
                # The client itself would only warn of an option that it does not know.
                parse_uri(url, validate=True, warn=False)
        self._name = f"MongoDB at {parts.netloc.rpartition('@')[2]}"
        self._url = url
        self.timeout = timeout
        self._users = 1
        self._forget_client()

    @contextlib.contextmanager
    def _address_checked(self) -> Iterator[None]:
        try:
            yield
        except (ConfigurationError, ValueError) as error:
            problem = f"its address cannot be used: {redact(error)}"
            raise StoreError(store=str(self), problem=problem) from None

    def _forget_client(self) -> None:
        self._generation = forks()
        self._lock = threading.Lock()
        self._client: MongoClient[Document] | None = None
        self._collections: Collections | None = None

    def __str__(self) -> str:
        return self._name

    def shared(self) -> Link:
        """Return this link for another store, which closes it too."""
        self._mind_forks()
        with self._lock:
            self._users += 1
        return self

    @contextlib.contextmanager
    def use(self) -> Iterator[Collections]:
        """Give the collections; all that is done with them ends within the timeout. Raises `StoreError`."""
        try:
            # It bounds a retry of pymongo's too, and tells the server when to give up.
            with pymongo.timeout(self.timeout):
                yield self._open()
        except PyMongoError as error:
            raise self._translated(error) from error

    def version(self) -> list[int]:
        """Return the version of the server."""
        with self.use() as collections:
            info = collections.messages.database.client.server_info()
            return [int(part) for part in info["versionArray"][:3]]

    def prepare(self) -> None:
        """Check the version, create the indexes. Raises `StoreError`."""
        version = self.version()
        if version < _OLDEST:
            problem = f"it is version {'.'.join(map(str, version))}; 5.0 is needed"
            raise StoreError(store=str(self), problem=problem)
        with self.use() as collections:
            collections.create_indexes()

    def close(self) -> None:
        """Close the client if no other store uses it."""
        self._mind_forks()
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._client is None:
                return
            client, self._client, self._collections = self._client, None, None
        with contextlib.suppress(PyMongoError), pymongo.timeout(self.timeout):
            client.close()

    def _open(self) -> Collections:
        self._mind_forks()
        with self._lock:
            if self._collections is None:
                timeout = round(self.timeout * 1000)
                with self._address_checked():
                    self._client = MongoClient(
                        self._url,
                        appname="broker-profiles",
                        serverSelectionTimeoutMS=timeout,
                        connectTimeoutMS=timeout,
                        socketTimeoutMS=timeout,
                    )
                self._collections = Collections(self._client)
            return self._collections

    def _mind_forks(self) -> None:
        """Leave the parent's client alone in a child, and its lock, which a thread may have held."""
        if self._generation != forks():
            _inherited.append((self._client, self._collections))
            self._users = 1
            self._forget_client()

    def _translated(self, error: PyMongoError) -> StoreError:
        code, problem = _code_and_problem(error)
        if "certificate verify failed" in problem:
            problem = f"{problem}; name the authority in tlsCAFile in the address"
            return StoreError(store=str(self), problem=problem)
        if isinstance(error, DocumentTooLarge) or code in _TOO_LARGE_CODES:
            return StoreError(store=str(self), problem="a message is larger than its 16 MB for a document")
        if code in _FULL_CODES or any(words in problem for words in _FULL_WORDS):
            return StoreFull(store=str(self), problem=problem)
        if code in _DENIED_CODES or "bad auth" in problem:
            return StoreDenied(store=str(self), problem=problem)
        if error.timeout or isinstance(error, ConnectionFailure) or code in _TRY_AGAIN_CODES:
            return StoreUnavailable(store=str(self), problem=problem)
        return StoreError(store=str(self), problem=problem)


def _code_and_problem(error: PyMongoError) -> tuple[int | None, str]:
    """Return MongoDB's number for an error, and the part of its text that is for people."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        for first in (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())):
            return first.get("code"), str(first.get("errmsg"))
    if isinstance(error, OperationFailure):
        return error.code, str((error.details or {}).get("errmsg") or error)
    text = str(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0].strip().rstrip(".")
    return None, redact(_PLAINER.get(text, text)) or type(error).__name__


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

    def dead_letters(self, queue: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters."""
        query = {"state": DEAD} if queue is None else {"state": DEAD, "queue": queue}
        with self._link.use() as db:
            found = db.messages.find(query).sort([("died_at", 1), ("seq", 1)]).limit(limit)
            return [
                DeadLetter(
                    letter["_id"],
                    letter["queue"],
                    letter["body"],
                    letter["priority"],
                    letter["reason"],
                    letter["detail"],
                    letter["deliveries"],
                    letter["died_at"] / 1000,
                )
                for letter in found
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

    def discard(self, ids: Sequence[int | str]) -> int:
        """Delete dead letters."""
        query = {"_id": {"$in": [str(id_) for id_ in ids]}, "state": DEAD}
        with self._link.use() as db:
            return db.messages.delete_many(query).deleted_count


def upserted(collection: Collection[Document], query: Document, update: Any) -> Document:
    """Change the document, or make it; return it as it is then."""
    after = ReturnDocument.AFTER
    try:
        found = collection.find_one_and_update(query, update, upsert=True, return_document=after)
    except DuplicateKeyError:
        # Another made it at the same moment.
        found = collection.find_one_and_update(query, update, upsert=True, return_document=after)
    return found or {}


def some_ids(messages: Collection[Document], query: Document) -> list[str]:
    """Return the ids of up to `BATCH` messages."""
    return [found["_id"] for found in messages.find(query, {"_id": 1}, batch_size=BATCH).limit(BATCH)]


def milliseconds(seconds: float | None) -> int | None:
    """Return seconds as MongoDB adds them to a time."""
    return None if seconds is None else int(seconds * 1000)
