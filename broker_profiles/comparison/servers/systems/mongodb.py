"""MongoDB: by URL or container only, for no distribution packages it."""

from __future__ import annotations

from collections.abc import Mapping

from ..base import Server
from ..description import IMITATION, Account, System

_ITS_OWN = ("admin", "config", "local")


class MongoDB(System):
    """MongoDB with a root user."""

    name = "mongodb"
    url_variable = "MONGODB_URL"
    schemes = ("mongodb",)  # "mongodb+srv" too: "+srv" counts as a driver
    driver = "pymongo"
    image = "mongo:8"
    container_port = 27017

    def url(self, account: Account) -> str:
        return f"mongodb://{account.address}/{account.name}?authSource=admin"

    def probe(self, url: str, timeout: float) -> str:
        import pymongo

        milliseconds = round(timeout * 1000)
        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(
            url,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        )
        try:
            # buildInfo is answered before a login; a ping through the database logs in first.
            client.admin.command("ping")
            built = client.admin.command("buildInfo")
            # What MongoDB itself is built from has a name.
            imitated = set(str(built.get("gitVersion", ""))) <= {"0"}
            return str(built["version"]) + (IMITATION if imitated else "")
        finally:
            client.close()

    def stored(self, server: Server) -> int:
        """The documents of all collections, in every database but the server's own."""
        import pymongo

        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(server.url)
        with client:
            databases = [client[name] for name in client.list_database_names() if name not in _ITS_OWN]
            return sum(
                database[name].count_documents({})
                for database in databases
                for name in database.list_collection_names()
            )

    def environment(self, account: Account) -> Mapping[str, str]:
        return {
            "MONGO_INITDB_ROOT_USERNAME": account.user,
            "MONGO_INITDB_ROOT_PASSWORD": account.password,
            "MONGO_INITDB_DATABASE": account.name,
        }


SYSTEM = MongoDB()
