"""The tasks under test, for any application."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, shared_task
from celery.exceptions import Reject


def _note(task_id: str, what: str) -> None:
    """Write down outside the broker that a task ran: one line, appended at once."""
    path = os.environ.get("ACCEPTANCE_LEDGER")
    if path:
        with Path(path).open("ab", buffering=0) as ledger:
            ledger.write(f"{what} {task_id} {os.getpid()} {time.time():.3f}\n".encode())


@shared_task(name="acceptance.add", bind=True)
def add(self: Any, x: int, y: int) -> int:
    _note(self.request.id, "run")
    return x + y


@shared_task(name="acceptance.total", bind=True)
def total(self: Any, numbers: list[int]) -> int:
    _note(self.request.id, "run")
    return sum(numbers)


@shared_task(name="acceptance.fail", bind=True)
def fail(self: Any, text: str) -> None:
    _note(self.request.id, "run")
    raise ValueError(text)


@shared_task(name="acceptance.retry_twice", bind=True, max_retries=5)
def retry_twice(self: Any, value: int, countdown: float = 0.1) -> int:
    _note(self.request.id, "run")
    if self.request.retries < 2:
        raise self.retry(countdown=countdown)
    return value


@shared_task(name="acceptance.sleep", bind=True)
def sleep(self: Any, seconds: float) -> str:
    _note(self.request.id, "run")
    time.sleep(seconds)
    _note(self.request.id, "end")
    return "slept"


@shared_task(name="acceptance.noop", bind=True, ignore_result=True)
def noop(self: Any) -> None:
    _note(self.request.id, "run")


@shared_task(name="acceptance.reject", bind=True)
def reject(self: Any, text: str, requeue: bool = False) -> None:
    """Fail, and take the message out of its queue for it, or put it back."""
    _note(self.request.id, "run")
    try:
        raise ValueError(text)
    except ValueError as error:
        raise Reject(error, requeue=requeue) from error


@shared_task(name="acceptance.die", bind=True)
def die(self: Any) -> None:
    """Take the process that runs it down, as running out of memory does."""
    _note(self.request.id, "run")
    os.kill(os.getpid(), 9)


def tasks_of(app: Celery) -> dict[str, Any]:
    """Return the tasks bound to an application, by their short names."""
    app.loader.import_default_modules()
    return {
        name.removeprefix("acceptance."): task
        for name, task in app.tasks.items()
        if name.startswith("acceptance.")
    }
