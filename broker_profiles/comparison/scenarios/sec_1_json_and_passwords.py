"""SEC-1: only JSON is accepted, and a password is shown to nobody."""

from __future__ import annotations

import os
import pickle
import traceback
import uuid
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from celery import Celery

from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.scenarios.sec_1_tls import addresses
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker

GUARANTEE = "SEC-1"

#: How long a client with a wrong password may take, in seconds, with all its attempts.
_REFUSAL = 60.0

#: How long a worker with a wrong password is watched once it was refused, in seconds.
_WATCHED = 2.0

#: A part of a password that needs every kind of quoting, to be found however it is written.
_MARK = "wr0ng"
_PASSWORD = f"{_MARK}@pass:word/%20"


class Trap:
    """What an attacker puts into a pickle: reading it makes a folder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def publish_traps(app: Celery, path: str) -> None:
    """Send a task and a command of remote control in pickle, and a task in YAML; each would make a folder."""
    pickled = pickle.dumps([[Trap(path)], {}, {}])
    command = pickle.dumps({"method": "ping", "arguments": {"trap": Trap(path)}})
    queue = app.amqp.queues[app.conf.task_default_queue]
    control = app.control.mailbox.exchange
    with app.producer_pool.acquire(block=True) as producer:
        for body, content_type in (
            (pickled, "application/x-python-serialize"),
            (f"!!python/object/apply:os.mkdir ['{path}']".encode(), "application/x-yaml"),
        ):
            id_ = str(uuid.uuid4())
            producer.publish(
                body,
                content_type=content_type,
                content_encoding="binary",
                headers={"task": "comparison.note", "id": id_, "root_id": id_, "lang": "py"},
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
            )
        if producer.connection.supports_exchange_type(control.type):
            producer.publish(
                command,
                content_type="application/x-python-serialize",
                content_encoding="binary",
                exchange=control,
                declare=[control],
            )


def failure(app: Celery) -> str:
    """Return all that a program shows of a task that it cannot send, an empty string where it can."""
    try:
        app.tasks["comparison.note"].delay()
    except Exception:
        return traceback.format_exc()
    return ""


@case("messages in pickle and YAML are not read, and the worker goes on", quick=True)
def pickle_refused(stage: Stage) -> None:
    """Send what would run code where it is read, as a task and as a command of remote control."""
    worker = stage.workers.start()
    trap = stage.folder / "trap"
    stage.client.call(publish_traps, str(trap))
    stage.wait_for(stage.client.sent("note", 5), 30)
    stage.pause(1.0)
    stage.require(not trap.exists(), "a worker read a message that was not JSON, and ran the code in it")
    stage.require(worker.alive, "the worker ended")
    stage.require_clean()


@case("a wrong password is in no error and no log")
def password_hidden(stage: Stage) -> None:
    """Give client, worker and `celery report` a wrong password, and read all that they say."""
    names = addresses(stage)
    if not any(urlsplit(stage.environ[name]).password for name in names):
        stage.not_applicable("there is no password")
    stage.configure(**{name: _with_password(stage.environ[name]) for name in names})
    said = stage.client.call(failure, within=_REFUSAL)
    if not said:
        stage.not_applicable("this server lets in whoever has a wrong password")
    stage.require(_MARK not in said, "the error of a client shows the password")
    report = stage.command("report")
    worker = stage.workers.start(ready=False)
    stage.require(report.wait(30) is not None, "`celery report` does not end")
    stage.wait(lambda: _is_refused(worker), _REFUSAL, "the worker says that it is refused, or ends")
    stage.pause(_WATCHED)
    stage.require(_MARK not in report.output(), "`celery report` shows the password")
    stage.require(_MARK not in worker.output(), "the log of a worker shows the password")


def _is_refused(worker: Worker) -> bool:
    """Return whether a worker has ended, or has had something to complain of."""
    said = worker.output()
    return not worker.alive or "ERROR" in said or "CRITICAL" in said


def _with_password(url: str) -> str:
    parts = urlsplit(url)
    user, where = parts.username or "", parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(_PASSWORD, safe='')}@{where}"))
