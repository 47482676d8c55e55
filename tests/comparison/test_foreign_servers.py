"""A server of somebody else: nobody's tasks are touched there, and nothing of ours stays."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest
import redis
import sqlalchemy
from celery import group

from broker_profiles.comparison.column import Host, parse
from broker_profiles.comparison.load.lengths import lengths
from broker_profiles.comparison.run import attempt
from broker_profiles.comparison.scenario import Outcome, all_cases, select
from broker_profiles.comparison.scenarios.del_8_unreadable_messages import publish
from broker_profiles.comparison.servers import Server, choose
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.variables import PREFIX_VARIABLE
from broker_profiles.profile import Mode
from broker_profiles.settings import with_driver
from tests.conftest import ServerOf

pytestmark = pytest.mark.timeout(180)


def foreign(name: str, server: Server) -> Host:
    """Return the host of a column on a server that it is told to be somebody else's."""
    return Host(parse(name), {server.description.url_variable: server.url, choose.VARIABLE: "url"})


# -- everything there is, as a text ----------------------------------------------------------------


def in_redis(server: Server) -> str:
    read: dict[str, Callable[[Any, bytes], Any]] = {
        "string": lambda client, key: client.get(key),
        "list": lambda client, key: client.lrange(key, 0, -1),
        "set": lambda client, key: client.smembers(key),
        "zset": lambda client, key: client.zrange(key, 0, -1),
        "hash": lambda client, key: client.hgetall(key),
    }
    with redis.Redis.from_url(server.url) as client:
        return repr([(key, read[client.type(key).decode()](client, key)) for key in client.scan_iter()])


def in_sql(server: Server) -> str:
    engine = sqlalchemy.create_engine(with_driver(server.url))
    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        tables = [sqlalchemy.Table(name, sqlalchemy.MetaData(), autoload_with=engine) for name in names]
        return repr([(table.name, connection.execute(table.select()).fetchall()) for table in tables])


def in_mongodb(server: Server) -> str:
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        database = client.get_default_database()
        return repr([(name, list(database[name].find())) for name in database.list_collection_names()])


def in_rabbitmq(server: Server) -> str:
    """Names alone, for what is in queues goes with them; not those that RabbitMQ removes in a minute."""
    ask = ("rabbitmqctl", "--silent", "--vhost", urlsplit(server.url).path[1:])
    queues = server.run(*ask, "list_queues", "name", "arguments").splitlines()
    lasting = [line for line in queues if not re.search(r'"x-expires",\d{1,5}\}', line)]
    return "\n".join([*lasting, server.run(*ask, "list_exchanges", "name")])


EVERYTHING = {
    "redis": in_redis,
    "postgresql": in_sql,
    "mysql": in_sql,
    "mongodb": in_mongodb,
    "rabbitmq": in_rabbitmq,
}

#: Seconds a worker may take to end. A pool process of billiard's may wait 30 s for its main process
#: at its end, which reads nothing any more (`_ensure_messages_consumed`).
ENDS_WITHIN = 45

#: Column -> the system of its server.
COLUMNS = {"redis": "redis", "stock-redis": "redis", "rabbitmq": "rabbitmq"}
SLOW = {
    "stock-rabbitmq": "rabbitmq",
    "postgresql": "postgresql",
    "stock-sqlalchemy": "postgresql",
    "mysql": "mysql",
    "mongodb": "mongodb",
    "stock-mongodb": "mongodb",
    "rabbitmq+redis": "redis",
}


# -- nothing stays ---------------------------------------------------------------------------------------


def save_group(app: Any) -> str:
    """In the client: send a group and save it; return its id."""
    add = app.tasks["comparison.add"]
    sent = group(add.s(1, 1), add.starmap([(1, 2)])).apply_async()
    sent.save()
    return str(sent.id)


def reply_queue(app: Any) -> str:
    """In a client: return where results come back where they are messages."""
    return str(app.thread_oid)


def use(stage: Stage) -> list[str]:
    """Do what leaves something behind; return names and ids of it."""
    elsewhere = {PREFIX_VARIABLE: f"{stage.prefix}-other"}
    stage.workers.start(concurrency=1)
    stage.workers.start(concurrency=1, environ=elsewhere)
    clients = [stage.client, stage.another_client(elsewhere)]
    for client in clients:
        (read,) = client.sent("add", 1, 1, 2)
        assert client.result(read) == ("SUCCESS", 3)
        client.control("ping", within=1.0)
    nobody = stage.another_client()
    left = nobody.sent("add", 2, 1, 2)
    stage.wait_for(left, 20)
    left.append(nobody.call(reply_queue))
    odd = str(uuid.uuid4())
    stage.client.call(publish, [{"id": odd, "headers": {"task": "nobody.knows"}}])
    if stage.profile.mode is not Mode.STOCK:
        stage.wait_for_value(lambda: stage.dead_letter(odd), 20, "no dead letter")
    if stage.profile.guarantees.chords:
        left.append(stage.client.call(save_group))
    # Not killed: a lease that was not given back is there until the next worker of anybody ends it.
    for worker in stage.workers:
        worker.terminate()
    for worker in stage.workers:
        assert worker.wait(ENDS_WITHIN) is not None
    left += stage.client.sent("note", 3)
    return [stage.prefix, odd, *left, *stage.ledger.ids("sending")]


@pytest.mark.parametrize(
    ("name", "system"),
    [
        *COLUMNS.items(),
        *(pytest.param(name, system, marks=pytest.mark.slow) for name, system in SLOW.items()),
    ],
)
def test_nothing_of_a_case_stays(
    name: str, system: str, server: ServerOf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = server(system)
    host = foreign(name, there)
    if "+" in name:
        host = Host(parse(name), {"REDIS_URL": there.url, "RABBITMQ_URL": server("rabbitmq").url})
    try:
        host.start()
        with Stage(host, tmp_path) as stage:
            names = use(stage)
            # A case may have given its processes a wrong password.
            stage.configure(**{url: "nothing://127.0.0.1:1" for url in stage.environ if url.endswith("_URL")})
    finally:
        host.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def found() -> list[str]:
        everything = EVERYTHING[system](there)
        places = {text: everything.find(text) for text in names}
        return [everything[max(0, at - 80) : at + 80] for at in places.values() if at >= 0]

    assert not found()


def test_what_could_not_be_removed_is_said(
    server: ServerOf, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = foreign("redis", server("redis"))
    try:
        host.start()
        with Stage(host, tmp_path) as stage:
            stage.client.sent("note", 1)
            wrong = {**stage.environ, "REDIS_URL": "redis://u:geheim@127.0.0.1:1"}
            monkeypatch.setattr(stage, "_at_first", wrong)
    finally:
        host.close()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.startswith(f"redis: not all of {stage.prefix} could be removed from a server of others:")
    assert "\n" not in said
    assert "geheim" not in said


# -- nobody's tasks are touched --------------------------------------------------------------------------


def test_a_baseline_leaves_the_unacknowledged_tasks_of_others_alone(server: ServerOf, tmp_path: Path) -> None:
    """They are in one key of the database, and the shortest timeout of any worker holds for all of them."""
    there = server("redis")
    message = json.dumps([{"body": "", "headers": {}, "properties": {"priority": 0}}, "", "theirs"])
    with redis.Redis.from_url(there.url) as client:
        client.hset("unacked", "their-tag", message)
        client.zadd("unacked_index", {"their-tag": time.time() - 100})
        host = foreign("stock-redis", there)
        try:
            host.start()
            with Stage(host, tmp_path) as stage:
                options = str(stage.profile.broker.redelivery_timeout).split()
                stage.set(broker_transport_options=dict.fromkeys(options, 1))
                sleeping = stage.workers.start(concurrency=1, settings={"task_acks_late": True})
                stage.wait_for(stage.client.sent("note", 5), 20)
                (long,) = stage.client.sent("note", 1, 30.0)
                stage.wait_for([long], 20, kind="start")
                sleeping.freeze()
                stage.workers.start(concurrency=1)
                # What is being tried works all the same: our own is given to another worker.
                stage.wait(
                    lambda: len([e for e in stage.ledger.of("start") if e.id == long]) > 1, 20, "again"
                )
        finally:
            host.close()
            theirs = client.hget("unacked", "their-tag"), client.llen("theirs")
            client.delete("unacked", "unacked_index", "theirs")
        assert theirs == (message.encode(), 0)


# -- what is not tried there -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_a_long_backlog_is_not_sent_to_others(name: str, server: ServerOf, tmp_path: Path) -> None:
    host = foreign(name, server(name))
    try:
        host.start()
        for number, case in enumerate(select(all_cases(), ["ETA-2"])):
            found = attempt(host, case, tmp_path / str(number))
            assert found.outcome is Outcome.NOT_APPLICABLE
            assert "not started here" in found.detail
            assert not found.events[:-1]
    finally:
        host.close()


def test_long_queues_are_not_filled_on_others() -> None:
    bench: Any = SimpleNamespace(owned=False)
    found = [measured.sample for measured in lengths(bench, {1_000: 5.0, 10_000: 8.0})]
    assert len(found) == 4
    assert {(sample.value, sample.note) for sample in found} == {
        (None, "not tried: the server was not started here")
    }
