"""The child side of a client: a process that sends tasks, so that one that hangs can be ended.

Reads one JSON object a line from its standard input, `{"function": "module:name", "args": [...]}`, calls
the function with the application, and answers with one line, `{"value": ...}` or `{"error": [type, text]}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import uuid
from dataclasses import asdict
from typing import Any

from celery import Celery

from broker_profiles.comparison.workload import app, ledger
from broker_profiles.errors import redact
from broker_profiles.runtime.dead_letters import list_dead_letters


def send(
    celery: Celery,
    task: str,
    count: int,
    args: list[Any],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    every: float = 0.0,
) -> list[list[Any]]:
    """Send a task so many times, `every` seconds apart; return `[id, seconds, error]` of each.

    Goes on after an error. `seconds` is how long the call took.
    """
    began = time.monotonic()
    answers = []
    for number in range(count):
        wait = began + number * every - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        answers.append(send_one(celery, task, args, kwargs, options))
    return answers


def stream(celery: Celery, task: str, args: list[Any], options: dict[str, Any], every: float) -> list[Any]:
    """Send a task every so many seconds until a line arrives; return `[id, seconds, error]` of each."""
    answers: list[Any] = []
    ended = threading.Event()

    def wait_for_line() -> None:
        # In a thread: a line that came with the question is in the buffer already, where `select` sees none.
        sys.stdin.readline()
        ended.set()

    waiting = threading.Thread(target=wait_for_line, daemon=True)
    waiting.start()
    due = time.monotonic() + every
    while not ended.wait(max(0.0, due - time.monotonic())):
        answers.append(send_one(celery, task, args, {}, options))
        due += every
    waiting.join()
    return answers


def send_one(
    celery: Celery, task: str, args: list[Any], kwargs: dict[str, Any], options: dict[str, Any]
) -> list[Any]:
    """Send one task, with the intention written down before and the outcome after."""
    id_ = str(uuid.uuid4())
    began = ledger().record("sending", id_, task).time
    try:
        celery.tasks[f"comparison.{task}"].apply_async(args, kwargs, task_id=id_, **options)
    except Exception as error:  # each client library has errors of its own
        text = one_line(error)
        return [id_, ledger().record("refused", id_, text).time - began, text]
    return [id_, ledger().record("sent", id_).time - began, None]


def result(celery: Celery, id_: str, within: float) -> list[Any]:
    """Return `[state, value]` of a result, waited for so many seconds; `[state, None]` where it is not."""
    waiting = celery.AsyncResult(id_)
    deadline = time.monotonic() + within
    while not waiting.ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    value = waiting.result
    return [waiting.state, str(value) if isinstance(value, BaseException) else value]


def control(celery: Celery, command: str, arguments: dict[str, Any], within: float) -> Any:
    """Broadcast a command of remote control and return the replies."""
    return celery.control.broadcast(command, arguments=arguments, reply=True, timeout=within)


def dead_letters(celery: Celery) -> list[dict[str, Any]]:
    """Return the dead letters of this run's queue."""
    return [asdict(letter) for letter in list_dead_letters(celery, celery.conf.task_default_queue)]


def one_line(error: BaseException) -> str:
    """Return the type and text of an error without passwords, on one line."""
    return f"{type(error).__name__}: {' '.join(redact(error).split())}"[:500]


def main() -> None:
    """Serve until the standard input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    app.finalize()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        module, _, name = request["function"].partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
            answer: dict[str, Any] = {"value": function(app, *request["args"])}
        except Exception as error:
            answer = {"error": [type(error).__name__, one_line(error)]}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
