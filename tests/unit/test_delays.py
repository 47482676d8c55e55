"""A client gives RabbitMQ what a delayed task needs, whether a worker has ever run or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.messaging import Producer

from broker_profiles import configure
from broker_profiles.runtime.delays import DelayedQueue

DELAYED = "0." * 27 + "1."


@pytest.fixture
def app() -> Celery:
    app = configure(Celery("t", set_as_current=False), "rabbitmq", environ={})
    app.conf.task_queues = [
        Queue("mail", Exchange("mail", "topic"), "mail.#"),
        Queue("other", routing_key="x"),
    ]
    return app


def declared(app: Celery, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """Send a message and return what was to be declared before it."""
    seen: list[Any] = []
    monkeypatch.setattr(Producer, "publish", lambda *args, declare=None, **_: seen.extend(declare or ()))
    app.amqp.send_task_message(Producer(None), "send", app.amqp.as_task_v2("id", "send"), **options)
    return seen


def test_a_delayed_task_declares_the_queues_it_may_come_to(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Exchange("celery_delayed_27", "topic")
    found = declared(app, monkeypatch, exchange=exchange, routing_key=f"{DELAYED}mail.urgent")
    assert [type(entity) for entity in found] == [DelayedQueue]
    assert [entity.name for entity in found] == ["mail"]


def test_a_task_that_is_not_delayed_declares_its_queue_alone(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = declared(app, monkeypatch, queue=app.amqp.queues["mail"], routing_key="mail.urgent")
    assert found == [app.amqp.queues["mail"]]


class Channel:
    """A channel that writes down what is declared and bound on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = connection
        self.log = connection.log

    def exchange_declare(self, exchange: str, passive: bool = False, **_: Any) -> None:
        self.log.append(("exchange", exchange, passive))
        if passive and exchange not in self.connection.exchanges:
            raise self.connection.channel_errors[0]("404")

    def queue_declare(self, queue: str = "", **_: Any) -> tuple[str, int, int]:
        self.log.append(("queue", queue, False))
        return queue, 0, 0

    def queue_bind(self, queue: str, exchange: str, **_: Any) -> None:
        self.log.append(("bind", f"{exchange} to {queue}", False))

    def exchange_bind(self, destination: str, source: str, **_: Any) -> None:
        self.log.append(("bind", f"{source} to {destination}", False))

    def prepare_queue_arguments(self, arguments: Any, **_: Any) -> Any:
        return arguments

    def close(self) -> None:
        self.log.append(("closed", "", False))

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """A connection to a broker with these exchanges."""

    channel_errors = (LookupError,)

    def __init__(self, *exchanges: str) -> None:
        self.exchanges = exchanges
        self.log: list[tuple[str, str, bool]] = []
        self.client = self
        self.declared_entities: set[int] = set()

    def channel(self) -> Channel:
        return Channel(self)


@contextmanager
def declaring(*exchanges: str) -> Iterator[tuple[Connection, Channel]]:
    connection = Connection(*exchanges)
    channel = connection.channel()
    Producer(channel, auto_declare=False).maybe_declare(
        DelayedQueue(Queue("mail", Exchange("mail", "topic"), "mail"), "quorum")
    )
    yield connection, channel


def test_the_delays_are_declared_where_nobody_has_declared_them() -> None:
    with declaring() as (connection, _):
        names = {name for kind, name, passive in connection.log if kind == "queue"}
        assert names == {"mail", *(f"celery_delayed_{level}" for level in range(28))}
        assert ("bind", "celery_delayed_delivery to mail", False) in connection.log


def test_delays_that_are_there_are_left_alone_and_the_queue_is_bound_to_them() -> None:
    with declaring("celery_delayed_delivery") as (connection, _):
        assert [name for kind, name, _ in connection.log if kind == "queue"] == ["mail"]
        assert ("bind", "celery_delayed_delivery to mail", False) in connection.log


def test_a_connection_declares_once() -> None:
    with declaring("celery_delayed_delivery") as (connection, channel):
        before = list(connection.log)
        Producer(channel, auto_declare=False).maybe_declare(
            DelayedQueue(Queue("mail", Exchange("mail", "topic"), "mail"), "quorum")
        )
        assert connection.log == before
