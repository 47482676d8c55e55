"""The application and the tasks of the comparison: what its workers run and its clients send.

A worker is `celery -A broker_profiles.comparison.workload worker`. Which profile, queue and ledger it
has comes from its environment, as for any application.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.signals import worker_ready

from broker_profiles.comparison.ledger import Recorder, recorder
from broker_profiles.comparison.variables import PREFIX_VARIABLE, SETTINGS_VARIABLE
from broker_profiles.configuration import configure

_ledger: Recorder | None = None


def ledger() -> Recorder:
    """Return this process's recorder."""
    global _ledger
    if _ledger is None:
        _ledger = recorder()
    return _ledger


def application(environ: Mapping[str, str] = os.environ) -> Celery:
    """Return the application on the profile, with the names and settings, of an environment."""
    made = Celery("comparison", set_as_current=True)
    prefix = environ[PREFIX_VARIABLE]
    made.conf.task_default_queue = prefix
    made.conf.control_exchange = f"{prefix}.pidbox"
    made.conf.event_exchange = f"{prefix}.events"
    made.conf.event_queue_prefix = f"{prefix}.events"
    made.conf.update(json.loads(environ.get(SETTINGS_VARIABLE, "{}")))
    return configure(made, environ=environ)


app = application()


@worker_ready.connect  # type: ignore[untyped-decorator, unused-ignore]
def _ready(sender: Any, **_: Any) -> None:
    ledger().record("ready", sender.hostname)


def _start(task: Task) -> None:
    again = bool((task.request.delivery_info or {}).get("redelivered"))
    ledger().record("start", task.request.id, task.name.partition(".")[2], again)


@app.task(bind=True, name="comparison.note", ignore_result=True)
def note(self: Task, seconds: float = 0.0, payload: str = "") -> None:
    """Take this long, in seconds, and leave no result."""
    _start(self)
    if seconds:
        time.sleep(seconds)
    ledger().record("finish", self.request.id)


@app.task(bind=True, name="comparison.add")
def add(self: Task, x: int, y: int, seconds: float = 0.0) -> int:
    """Return a sum after so many seconds."""
    _start(self)
    if seconds:
        time.sleep(seconds)
    ledger().record("finish", self.request.id)
    return x + y


@app.task(bind=True, name="comparison.total")
def total(self: Task, numbers: list[int]) -> int:
    """Return the sum of a list: the body of a chord."""
    _start(self)
    ledger().record("finish", self.request.id)
    return sum(numbers)


@app.task(bind=True, name="comparison.fail")
def fail(self: Task, text: str = "on purpose") -> None:
    """Raise `ValueError`."""
    _start(self)
    ledger().record("finish", self.request.id)
    raise ValueError(text)


@app.task(bind=True, name="comparison.die", ignore_result=True)
def die(self: Task) -> None:
    """Kill the process that runs it, as running out of memory does."""
    _start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="comparison.swallow", ignore_result=True)
def swallow(self: Task, megabytes: int) -> None:
    """Take up memory until the system ends the process."""
    _start(self)
    held = []
    for _ in range(megabytes):
        held.append(bytearray(os.urandom(1 << 20)))
    ledger().record("finish", self.request.id, f"{len(held)} MiB")
