"""One stored result as it lies in the result store: where, under which key, with which value."""

from __future__ import annotations

import json
from dataclasses import dataclass

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend

from broker_profiles.errors import redact


@dataclass(frozen=True, slots=True)
class Stored:
    """A result where it lies."""

    where: str
    key: str
    value: str


def stored_result(app: Celery, task_id: str) -> Stored:
    """Return where the result of a finished task lies, and what lies there."""
    backend = app.backend
    where = redact(app.conf.result_backend)
    if isinstance(backend, BaseKeyValueStoreBackend):
        key = backend.get_key_for_task(task_id)
        return Stored(where, _text(key), _text(backend.get(key)))
    if not backend.persistent or where.startswith("rpc"):
        return Stored(where, task_id, "a message that this client has taken; nobody else can read it")
    meta = backend.get_task_meta(task_id, cache=False)
    return Stored(where, f"{_table(backend)}, task_id = {task_id}", json.dumps(meta, default=str))


def _table(backend: object) -> str:
    """Return the table of Celery's database backend, or the collection of its MongoDB backend."""
    row = getattr(backend, "task_cls", None)
    return str(row.__table__.name if row is not None else getattr(backend, "taskmeta_collection", "results"))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
