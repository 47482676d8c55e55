"""A durable record on each system, written and read by the system's own client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 20


def write(system: str, url: str, text: str) -> None:
    """Returns when the server has said that it holds the text."""
    _WRITE[system](url, text)


def read(system: str, url: str) -> str:
    """The text of the last write; on a queue the message is taken and put back."""
    return _READ[system](url)


def remove(system: str, url: str) -> None:
    """Returns when the server has said that the text is gone."""
    _REMOVE[system](url)


@contextmanager
def _redis(url: str) -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(url, socket_timeout=TIMEOUT, decode_responses=True) as client:
        yield client


def _redis_write(url: str, text: str) -> None:
    with _redis(url) as client:
        client.set("record", text)


def _redis_remove(url: str) -> None:
    with _redis(url) as client:
        client.delete("record")


def _redis_read(url: str) -> str:
    with _redis(url) as client:
        return str(client.get("record"))


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    import amqp

    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port}",
        userid=parts.username,
        password=parts.password,
        virtual_host=parts.path[1:],
        confirm_publish=True,
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
    )
    with connection:
        channel = connection.channel()
        # A classic queue: a quorum queue survives a kill only from about a second after its
        # declaration (RabbitMQ 3.10 and 4.0; its name is written to disk by a timer), and what
        # is tested here is the server's life, not the queue's.
        channel.queue_declare(
            "records", durable=True, auto_delete=False, arguments={"x-queue-type": "classic"}
        )
        yield channel


def _rabbitmq_write(url: str, text: str) -> None:
    import amqp

    with _channel(url) as channel:
        channel.queue_purge("records")
        channel.basic_publish(amqp.Message(text, delivery_mode=2), routing_key="records", mandatory=True)


def _rabbitmq_remove(url: str) -> None:
    with _channel(url) as channel:
        channel.queue_purge("records")


def _rabbitmq_read(url: str) -> str:
    with _channel(url) as channel:
        message = channel.basic_get("records")
        assert message is not None, "the queue is empty"
        channel.basic_reject(message.delivery_tag, requeue=True)
        return str(message.body)


def _sql_write(connection: Any, text: str) -> None:
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS records (text VARCHAR(100))")
        cursor.execute("DELETE FROM records")
        cursor.execute("INSERT INTO records VALUES (%s)", (text,))
        connection.commit()


def _sql_remove(connection: Any) -> None:
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("DELETE FROM records")
        connection.commit()


def connect(system: str, url: str) -> Any:
    """A connection of the system's driver; of databases only."""
    return {"postgresql": _postgresql, "mysql": _mysql}[system](url)


def add(system: str, url: str, text: str) -> None:
    """Adds a row to those of the last write; of databases only."""
    with closing(connect(system, url)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO records VALUES (%s)", (text,))
        connection.commit()


def count(system: str, url: str) -> int:
    """How many rows there are; of databases only."""
    with closing(connect(system, url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM records")
        return int(cursor.fetchone()[0])


def _sql_read(connection: Any) -> str:
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT text FROM records")
        return str(cursor.fetchone()[0])


def _postgresql(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, connect_timeout=TIMEOUT)


def _mysql(url: str) -> Any:
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 0,
        user=parts.username,
        password=parts.password or "",
        database=parts.path[1:],
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
    )


@contextmanager
def _collection(url: str) -> Iterator[Any]:
    import pymongo

    client: Any = pymongo.MongoClient(url, serverSelectionTimeoutMS=TIMEOUT * 1000)
    with client:
        yield client.get_default_database()["records"]


def _mongodb_write(url: str, text: str) -> None:
    with _collection(url) as collection:
        collection.replace_one({"_id": 1}, {"text": text}, upsert=True)


def _mongodb_remove(url: str) -> None:
    with _collection(url) as collection:
        collection.delete_one({"_id": 1})


def _mongodb_read(url: str) -> str:
    with _collection(url) as collection:
        return str(collection.find_one({"_id": 1})["text"])


_WRITE: dict[str, Callable[[str, str], None]] = {
    "redis": _redis_write,
    "rabbitmq": _rabbitmq_write,
    "postgresql": lambda url, text: _sql_write(_postgresql(url), text),
    "mysql": lambda url, text: _sql_write(_mysql(url), text),
    "mongodb": _mongodb_write,
}
_REMOVE: dict[str, Callable[[str], None]] = {
    "redis": _redis_remove,
    "rabbitmq": _rabbitmq_remove,
    "postgresql": lambda url: _sql_remove(_postgresql(url)),
    "mysql": lambda url: _sql_remove(_mysql(url)),
    "mongodb": _mongodb_remove,
}
_READ: dict[str, Callable[[str], str]] = {
    "redis": _redis_read,
    "rabbitmq": _rabbitmq_read,
    "postgresql": lambda url: _sql_read(_postgresql(url)),
    "mysql": lambda url: _sql_read(_mysql(url)),
    "mongodb": _mongodb_read,
}
