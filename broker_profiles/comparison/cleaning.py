"""Removes what a case has left on a server that others use too.

What is named after the case is found by that name. Results, groups of them and the queues that results come
back in have names of their own, so the suite's processes write these down before they send.

What applications share stays: tables, collections, RabbitMQ's queues for delayed messages. For a while so do
RabbitMQ's queues of events and remote control, a minute, and the lease of a worker that was killed, until the
next worker of anybody ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import before_task_publish

from broker_profiles.comparison.ledger import VARIABLE, Ledger, NewLines, OwnFile
from broker_profiles.comparison.variables import KEYS_VARIABLE, TRACES_VARIABLE
from broker_profiles.errors import redact
from broker_profiles.transports import leased
from broker_profiles.transports.rabbitmq_dead import dead_letter_queue

_SUFFIX = ".traces"

#: How many keys or dead letters are looked up at once.
_BATCH = 500

#: What Celery adds to the key of a group in which it counts the parts of a chord.
_COUNTED = (".j", ".t", ".s")


def keep_traces(folder: Path) -> None:
    """Write down, for the rest of this process's life, the names of what its tasks may leave on a server."""
    file = OwnFile(folder, _SUFFIX)

    def write(headers: Mapping[str, Any], properties: Mapping[str, Any], **_: Any) -> None:
        if not headers.get("ignore_result"):
            names = [headers["id"], headers.get("group"), properties.get("reply_to")]
            file.append(json.dumps(names).encode() + b"\n")

    before_task_publish.connect(write, weak=False)


def remove_all(app: Celery) -> list[str]:
    """Remove all that this run has left; return what that failed of, and why, without passwords."""
    failed = []
    steps: dict[str, Callable[[Celery], None]] = {"queues": remove_queues, "results": _remove_results}
    for what, step in steps.items():
        try:
            step(app)
        except Exception as error:  # each client library has errors of its own
            failed.append(f"{what}: {type(error).__name__}: {redact(error)}")
    return failed


def remove_queues(app: Celery) -> None:
    """Remove this run's queues and exchanges from the broker. Raises what its client library raises."""
    if keys := os.environ.get(KEYS_VARIABLE):
        _remove_keys(app, keys)
        return
    queue = app.amqp.queues[app.conf.task_default_queue]
    mailbox = app.control.mailbox
    control = [mailbox.exchange.name, mailbox.reply_exchange.name, app.conf.event_exchange]
    exchanges = [*filter(None, [queue.exchange.name]), *control]
    with app.connection_for_write() as connection:
        channel, transport = connection.default_channel, connection.transport
        if isinstance(transport, leased.Transport):
            _remove_leased(transport, queue.name, exchanges)
        elif transport.driver_type == "amqp":
            for name in (queue.name, dead_letter_queue(queue.name), *_Names().replies):
                channel.queue_delete(name)
            for name in exchanges:
                channel.exchange_delete(name)
        elif transport.driver_type == "sql":
            _remove_rows(channel, queue.name)
        elif transport.driver_type == "mongodb":
            _remove_documents(channel, queue.name)
        else:
            bound = queue.bind(channel)
            bound.declare()  # kombu deletes what it has declared itself, and nothing else
            bound.delete()


def _remove_keys(app: Celery, keys: str) -> None:
    # Without the prefix, which kombu puts before the keys of some commands only.
    with app.connection_for_write(transport_options={"global_keyprefix": ""}) as connection:
        client = connection.default_channel.client
        if found := list(client.scan_iter(f"{keys}*", _BATCH)):
            client.delete(*found)


def _remove_leased(transport: leased.Transport, queue: str, exchanges: list[str]) -> None:
    store = transport.store
    bound = {name for exchange in exchanges for _, name in store.bindings(exchange)}
    for name in {queue, *bound}:
        store.drop(name)
    while letters := store.dead_letters(queue, _BATCH):
        store.discard([letter.id for letter in letters])


def _remove_rows(channel: Any, prefix: str) -> None:
    session, queues, messages = channel.session, channel.queue_cls, channel.message_cls
    for (id_,) in session.query(queues.id).filter(queues.name.contains(prefix)).all():
        session.query(messages).filter(messages.queue_id == id_).delete(synchronize_session=False)
        session.query(queues).filter(queues.id == id_).delete(synchronize_session=False)
    session.commit()


def _remove_documents(channel: Any, prefix: str) -> None:
    named = {"$regex": re.escape(prefix)}
    channel.messages.delete_many({"queue": named})
    channel.routing.delete_many({"$or": [{"queue": named}, {"exchange": named}]})
    channel.broadcast.delete_many({"queue": named})


class _Names:
    """What the processes of a case have written down."""

    def __init__(self) -> None:
        self.results: set[str] = set()
        self.groups: set[str] = set()
        self.replies: set[str] = set()
        folder = os.environ.get(TRACES_VARIABLE)
        for line in NewLines(Path(folder), _SUFFIX) if folder else ():
            id_, group, reply_to = json.loads(line)
            self.results.add(id_)
            self.groups |= {group} - {None}
            self.replies |= {reply_to} - {None, ""}


def _remove_results(app: Celery) -> None:
    backend, names = app.backend, _Names()
    # Messages that no task's own method has sent have a result where nobody knows their task.
    sent = Ledger(Path(os.environ[VARIABLE])).of("sending")
    odd = {event.id for event in sent if f"comparison.{event.text}" not in app.tasks}
    with contextlib.suppress(NotImplementedError):  # nothing is stored
        for id_ in names.results | odd:
            backend.forget(id_)
        for group in names.groups:
            backend.delete_group(group)
            if hasattr(backend, "get_key_for_group"):
                for ending in _COUNTED:
                    backend.delete(backend.get_key_for_group(group, ending))
