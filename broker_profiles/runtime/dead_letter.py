"""One dead letter as people read it: what it says of its task, without anything that is nobody's business."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.utils.saferepr import saferepr

from broker_profiles.errors import HIDDEN, SECRET_NAME, redact
from broker_profiles.transports import envelope, store

#: Why a message is set aside; RabbitMQ does so with what has expired in a queue, too.
REASONS = (store.DELIVERIES_EXHAUSTED, store.UNREADABLE, store.UNKNOWN_TASK, store.REJECTED, "expired")

#: The most characters of a body that are shown, and the headers that are shown in its place.
_PREVIEW = 500
_ARGUMENTS = ("argsrepr", "kwargsrepr")

#: The most characters of arguments that are shown; Celery keeps a quarter of it.
_LONGEST = 4096

# A text that stands for an argument's name, and what is behind it: a plain text or value, or else all there
# is, for where something else ends nobody can say of what was shortened and may hold any brackets and quotes.
_NAMED = re.compile(
    rf"""(?P<name>['"][^'"]*(?:{SECRET_NAME.pattern})[^'"]*['"]\s*:\s*)"""
    r"""(?:(?:b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*"|none|null|true|false|-?\d[\d.e+-]*)(?=\s*[,)\]}])|.+)""",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message set aside.

    `reason` is `deliveries exhausted`, `cannot decode`, `unknown task`, `rejected` or `expired`, and
    `detail` what is known beyond that, in a line. `deliveries` is how often it was delivered, as far as the
    broker says; `size` is in bytes. `task` and `task_id` are empty where the message does not say.
    `traceback` is that of the last failure of its task, as far as a worker has seen one.
    """

    #: Names this dead letter wherever one is asked for.
    id: str
    queue: str
    reason: str
    detail: str
    deliveries: int
    task: str
    task_id: str
    died_at: datetime
    size: int
    traceback: str


@dataclass(frozen=True, slots=True)
class Contents:
    """A dead letter with what its message holds, as far as that is fit to be shown.

    `args` and `kwargs` are the arguments as Celery shows them, in its events for instance. `body` is the
    beginning of a body that holds no arguments, or none that can be read.
    """

    letter: DeadLetter
    headers: Mapping[str, Any]
    args: str
    kwargs: str
    body: str


def shown(letter: store.DeadLetter) -> DeadLetter:
    """Return a dead letter of a store for people."""
    return _shown(letter, _envelope(letter.body))


def contents(letter: store.DeadLetter) -> Contents:
    """Return a dead letter of a store with what it holds."""
    message = _envelope(letter.body)
    headers = {} if message is None else message.headers
    args, kwargs = (_text(headers.get(name)) for name in _ARGUMENTS)
    body = b"" if args or kwargs else letter.body if message is None else message.body
    call = _call(body)
    if call is not None:
        args, kwargs, body = saferepr(harmless(call[0])), saferepr(harmless(call[1])), b""
    return Contents(
        letter=_shown(letter, message),
        headers={
            str(name): harmless(value, str(name)) for name, value in headers.items() if name not in _ARGUMENTS
        },
        args=_hidden(args),
        kwargs=_hidden(kwargs),
        body=_hidden(body[:_PREVIEW].decode("utf-8", "backslashreplace")),
    )


def harmless(value: Any, name: str = "") -> Any:
    """Return what JSON can hold, with what only its owner should know hidden."""
    if value is not None and SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): harmless(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def _shown(letter: store.DeadLetter, message: envelope.Envelope | None) -> DeadLetter:
    headers = {} if message is None else message.headers
    detail, _, traceback = letter.detail.partition("\n")
    return DeadLetter(
        id=str(letter.id),
        queue=letter.queue,
        reason=letter.reason,
        detail=redact(detail),
        deliveries=letter.deliveries,
        task=_text(headers.get("task")),
        task_id=_text(headers.get("id")),
        died_at=datetime.fromtimestamp(letter.died_at, UTC),
        size=letter.size,
        traceback=redact(traceback),
    )


def _envelope(body: bytes) -> envelope.Envelope | None:
    try:
        return envelope.unpack(body)
    except envelope.UnreadableEnvelope:
        return None


def _call(body: bytes) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the arguments in a body, none where it holds none that can be read."""
    try:
        args, kwargs, _ = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None


def _hidden(text: str) -> str:
    return _NAMED.sub(rf"\g<name>'{HIDDEN}'", redact(text[:_LONGEST]))


def _text(value: Any) -> str:
    """Return a header's text; what lies here may be here because its headers are of wrong types."""
    return value if isinstance(value, str) else ""
