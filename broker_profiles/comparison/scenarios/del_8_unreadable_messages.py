"""DEL-8: a message that cannot be read becomes a dead letter with its reason, and the worker goes on."""

from __future__ import annotations

import json
import uuid
from typing import Any

from celery import Celery

from broker_profiles.comparison.ledger import recorder
from broker_profiles.comparison.pressure import Patience
from broker_profiles.comparison.scenario import PromiseBroken, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-8"

#: Seconds within which good tasks run between the bad ones, and within which the rest is set aside then.
_GOOD, _BAD = 30.0, 10.0

#: A message as a foreign or broken producer may send it: what differs from a good one.
Oddity = dict[str, Any]

_BODIES: dict[str, Oddity] = {
    "JSON that ends too early": {"body": '[["half'},
    "bytes that are no text": {"body": "\xff\xfe\x00"},
    "no body at all": {"body": ""},
    "pickle": {"body": "\x80\x04N.", "content_type": "application/x-python-serialize"},
    "a content type nobody knows": {"content_type": "application/x-nothing"},
    "a character set nobody knows": {"content_encoding": "utf-999"},
    "a compression nobody knows": {"headers": {"compression": "application/x-nothing"}},
}

_CALLS: dict[str, Oddity] = {
    "a number": {"body": "5"},
    "null": {"body": "null"},
    "a text": {"body": '"args"'},
    "an object": {"body": '{"a": 1}'},
    "two parts of three": {"body": "[[], {}]"},
    "three numbers": {"body": "[1, 2, 3]"},
    "arguments by name in a list": {"body": "[[], [1], {}]"},
    "callbacks that are a number": {"body": '[[], {}, {"callbacks": 5}]'},
}

_HEADERS: dict[str, Oddity] = {
    f"{name} is {value!r}": {"headers": {name: value}}
    for name, value in (
        ("task", ["comparison.note"]),
        ("expires", []),
        ("eta", {"a": 1}),
        ("retries", "x"),
        ("timelimit", 7),
        ("root_id", 5),
        ("group", [1]),
        ("stamped_headers", 5),
    )
}

_TASKS: dict[str, Oddity] = {
    "a task nobody knows": {"headers": {"task": "no.such.task"}},
    "an empty task name": {"headers": {"task": ""}},
    "no task name": {"without": ["task"]},
    "a message of something else": {"without": ["task", "lang"], "body": '{"hello": "world"}'},
}


@case("bodies that cannot be decoded", quick=True)
def bodies(stage: Stage) -> None:
    """Broken JSON, pickle, unknown types, character sets and compressions, no body."""
    _become_dead_letters(stage, _BODIES)


@case("bodies that are no call")
def calls(stage: Stage) -> None:
    """JSON that is well written, and not arguments, arguments by name and callbacks."""
    _become_dead_letters(stage, _CALLS)


@case("headers of wrong types")
def headers(stage: Stage) -> None:
    """Each has ended a worker of somebody's. One that nobody looks at may leave its task running."""
    _become_dead_letters(stage, _HEADERS)


@case("tasks nobody knows")
def tasks(stage: Stage) -> None:
    """A name that is not registered, or none: the message of a newer version, or of something else."""
    _become_dead_letters(stage, _TASKS)


def publish(app: Celery, messages: list[Oddity]) -> None:
    """In the client: send messages to the queue of this run, past all that would make them good."""
    ledger = recorder()
    with app.producer_or_acquire() as producer:
        for message in messages:
            id_, odd = message["id"], message.get("headers", {})
            good = {"id": id_, "task": "comparison.note", "lang": "py", "root_id": id_}
            ledger.record("sending", id_, "odd message")
            producer.publish(
                message.get("body", json.dumps([[], {}, {}])).encode("latin-1"),
                exchange="",
                routing_key=app.conf.task_default_queue,
                content_type=message.get("content_type", "application/json"),
                content_encoding=message.get("content_encoding", "utf-8"),
                headers={
                    name: value
                    for name, value in {**good, **odd}.items()
                    if name not in message.get("without", [])
                },
                delivery_mode=2,
            )


def _become_dead_letters(stage: Stage, oddities: dict[str, Oddity]) -> None:
    """Send odd messages, each with a good task behind it; the good ones run, none of the odd is lost."""
    worker = stage.workers.start(concurrency=1)
    ids = {title: str(uuid.uuid4()) for title in oddities}
    good: dict[str, str] = {}
    for title, oddity in oddities.items():
        stage.client.call(publish, [{**oddity, "id": ids[title]}])
        good[stage.client.sent("note")[0]] = title

    def all_ran() -> bool:
        missing = [title for id_, title in good.items() if id_ not in stage.ledger.ids("finish")]
        if missing and not worker.alive:
            raise PromiseBroken(f"the worker ended, at this or a later one: {missing[0]}")
        return not missing

    stage.wait_for_value(all_ran, _GOOD, "the worker lives and does not run good tasks")
    _none_is_lost(stage, ids, _BAD)
    stage.require(worker.alive, "the worker ended")
    unexplained = [letter for letter in stage.client.dead_letters() if not letter.detail]
    stage.require(not unexplained, f"{len(unexplained)} dead letters do not say why")


def _none_is_lost(stage: Stage, ids: dict[str, str], seconds: float) -> None:
    """Return once each of these has run or is a dead letter."""
    patience = Patience(seconds)
    while lost := [title for title, id_ in ids.items() if not _is_accounted_for(stage, id_)]:
        if patience.over():
            shown = "; ".join(lost)
            raise PromiseBroken(
                f"{len(lost)} of {len(ids)} have neither run nor become dead letters: {shown}"
            )
        stage.pause(0.3)


def _is_accounted_for(stage: Stage, id_: str) -> bool:
    return id_ in stage.ledger.ids("finish") or stage.dead_letter(id_) is not None
