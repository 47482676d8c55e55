"""The application and the tasks of the comparison: what its workers run and its clients send.

A worker is `celery -A broker_profiles.comparison.workload worker`. Which profile, queue and ledger it
has comes from its environment, as for any application.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.signals import after_task_publish, beat_init, before_task_publish, worker_ready

from broker_profiles.comparison.cleaning import keep_traces
from broker_profiles.comparison.ledger import VARIABLE, Recorder, recorder
from broker_profiles.comparison.marks import Marker
from broker_profiles.comparison.variables import (
    KEYS_VARIABLE,
    PREFIX_VARIABLE,
    SETTINGS_VARIABLE,
    TRACES_VARIABLE,
    with_keys,
)
from broker_profiles.configuration import configure

_ledger: Recorder | None = None
#: Task id -> how often this process has started it, for `refuse`.
_refused: Counter[str] = Counter()


def ledger() -> Recorder:
    """Return this process's recorder."""
    global _ledger
    if _ledger is None:
        _ledger = recorder()
    return _ledger


@functools.cache
def marker() -> Marker:
    """Return this process's way to write marks down."""
    return Marker(Path(os.environ[VARIABLE]))


def application(environ: Mapping[str, str] = os.environ) -> Celery:
    """Return the application on the profile, with the names and settings, of an environment."""
    made = Celery("comparison", set_as_current=True)
    prefix = environ[PREFIX_VARIABLE]
    made.conf.task_default_queue = prefix
    made.conf.control_exchange = f"{prefix}.pidbox"
    made.conf.event_exchange = f"{prefix}.events"
    made.conf.event_queue_prefix = f"{prefix}.events"
    settings = json.loads(environ.get(SETTINGS_VARIABLE, "{}"))
    made.conf.update(with_keys(settings, environ.get(KEYS_VARIABLE, "")))
    return configure(made, environ=environ)


app = application()
if TRACES_VARIABLE in os.environ:
    keep_traces(Path(os.environ[TRACES_VARIABLE]))


@worker_ready.connect  # type: ignore[untyped-decorator, unused-ignore]
def _ready(sender: Any, **_: Any) -> None:
    ledger().record("ready", sender.hostname)


@beat_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _write_ticks_down(**_: Any) -> None:
    """Have beat write down what it sends, and no other process, for a signal slows sending down."""
    ledger().record("note", "", "beat begins")
    before_task_publish.connect(_sending_tick)
    after_task_publish.connect(_sent_tick)


def _sending_tick(headers: Mapping[str, Any], **_: Any) -> None:
    # The second in which it is due: the schedules of the comparison are rounded to whole seconds.
    ledger().record("sending", headers["id"], f"tick {int(time.time())}")


def _sent_tick(headers: Mapping[str, Any], **_: Any) -> None:
    ledger().record("sent", headers["id"])


def _start(task: Task) -> None:
    again = bool((task.request.delivery_info or {}).get("redelivered"))
    if task.request.id:  # what a map or a chunk calls has no id of its own
        ledger().record("start", task.request.id, task.name.partition(".")[2], again)


def _finish(task: Task) -> None:
    if task.request.id:
        ledger().record("finish", task.request.id)


@app.task(bind=True, name="comparison.note", ignore_result=True)
def note(self: Task, seconds: float = 0.0, payload: str = "") -> None:
    """Take this long, in seconds, and leave no result."""
    _start(self)
    if seconds:
        time.sleep(seconds)
    ledger().record("finish", self.request.id)


@app.task(bind=True, name="comparison.mark", ignore_result=True)
def mark(self: Task, seconds: float = 0.0, payload: str = "") -> None:
    """Take this long, in seconds, and leave one short line in the ledger: for measurements."""
    started = time.monotonic()
    if seconds:
        time.sleep(seconds)
    marker().mark(self.request.id, started)


@app.task(bind=True, name="comparison.add")
def add(self: Task, x: int, y: int, seconds: float = 0.0) -> int:
    """Return a sum after so many seconds."""
    _start(self)
    if seconds:
        time.sleep(seconds)
    _finish(self)
    return x + y


@app.task(bind=True, name="comparison.total")
def total(self: Task, numbers: list[int]) -> int:
    """Return the sum of a list: the body of a chord."""
    _start(self)
    _finish(self)
    return sum(numbers)


@app.task(bind=True, name="comparison.fail")
def fail(self: Task, text: str = "on purpose") -> None:
    """Raise `ValueError`."""
    _start(self)
    ledger().record("finish", self.request.id)
    raise ValueError(text)


@app.task(bind=True, name="comparison.again", ignore_result=True)
def again(self: Task, seconds: float) -> None:
    """Ask at the first run to run once more, after so many seconds."""
    _start(self)
    if not self.request.retries:
        raise self.retry(countdown=seconds)
    ledger().record("finish", self.request.id)


@app.task(bind=True, name="comparison.die", ignore_result=True)
def die(self: Task, unless: str = "") -> None:
    """Kill the process that runs it, as running out of memory does, unless there is a file of this name."""
    _start(self)
    if not unless or not Path(unless).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    ledger().record("finish", self.request.id)


# Late: with an early acknowledgement there is nothing left to reject.
@app.task(bind=True, name="comparison.refuse", ignore_result=True, acks_late=True)
def refuse(self: Task, times: int) -> None:
    """Reject its message so many times, each time to be delivered again; then finish."""
    _start(self)
    _refused[self.request.id] += 1
    if _refused[self.request.id] <= times:
        raise Reject("on purpose", requeue=True)
    ledger().record("finish", self.request.id)


@app.task(bind=True, name="comparison.swallow", ignore_result=True)
def swallow(self: Task, megabytes: int) -> None:
    """Take up memory until the system ends the process."""
    _start(self)
    held = []
    for _ in range(megabytes):
        held.append(bytearray(os.urandom(1 << 20)))
    ledger().record("finish", self.request.id, f"{len(held)} MiB")
