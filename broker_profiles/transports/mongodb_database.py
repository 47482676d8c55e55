"""The MongoDB database of a store: connection, forks, errors in our words; queues, bindings, dead letters.

What a message waits for is its `state`. A dead letter is a message too, so that setting it aside and
replaying it change one document, and there is no moment at which it could be lost or be there twice.
Times are milliseconds since the epoch, on the server's clock, but for `used_at`.

Everything that matters is written to the journals of a majority (of the one server, where it is alone).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pymongo
from pymongo import IndexModel, MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable, redact
from broker_profiles.transports.forks import forks

Document = dict[str, Any]

PREFIX = "broker_profiles_"
READY, DELAYED, LEASED, DEAD, HIDDEN = 0, 1, 2, 3, 4

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

#: The shortest timeout, in seconds: 0 is none at all.
_NO_TIME = 0.001

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
        self.marks: Collection[Document] = database[f"{PREFIX}marks"]
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
                IndexModel([("died_at", 1), ("_id", 1)], partialFilterExpression={"state": DEAD}),
                IndexModel("expires", sparse=True),
                IndexModel("hidden", sparse=True),
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
        # To a server that is gone it would wait to say goodbye.
        seconds = self.timeout if client.nodes else _NO_TIME
        with contextlib.suppress(PyMongoError), pymongo.timeout(seconds):
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
