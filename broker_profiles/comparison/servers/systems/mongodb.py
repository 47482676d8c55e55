"""MongoDB: by URL or container only, for no distribution packages it."""

from __future__ import annotations

from collections.abc import Mapping

from ..description import Account, System


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
            return str(client.admin.command("buildInfo")["version"])
        finally:
            client.close()

    def environment(self, account: Account) -> Mapping[str, str]:
        return {
            "MONGO_INITDB_ROOT_USERNAME": account.user,
            "MONGO_INITDB_ROOT_PASSWORD": account.password,
            "MONGO_INITDB_DATABASE": account.name,
        }


SYSTEM = MongoDB()
