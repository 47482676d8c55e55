"""Runs in a worker's container: sends tasks and a chord, and collects their results by id.

    python load.py NUMBER SECONDS

It prints `half` when half of the tasks are sent, and at its end one line of JSON. Sending takes about ten
seconds, so that a broker restarted at `half` is away while tasks are sent, while tasks wait for their time
and while tasks run. A task that cannot be sent is sent again under the same id.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

from celery import chord
from kombu.exceptions import OperationalError

from tasks.app import app
from tasks.arithmetic import add, xsum

NUMBER, SECONDS = int(sys.argv[1]), float(sys.argv[2])
DEADLINE = time.monotonic() + SECONDS
PACE = 10 / NUMBER
COUNTDOWN = 8
HEADER = 20


def send(task: Any, task_id: str, **options: Any) -> None:
    """Send a task until the broker has it."""
    while True:
        try:
            task.apply_async(task_id=task_id, **options)
        except (OperationalError, OSError):
            if time.monotonic() > DEADLINE:
                raise
            time.sleep(PACE)
        else:
            return


def value(task_id: str) -> Any:
    """Return the value of a task, or in words why there is none; its store may be away for a while."""
    while True:
        try:
            return app.AsyncResult(task_id).get(timeout=max(1.0, DEADLINE - time.monotonic()))
        except Exception as error:
            if time.monotonic() > DEADLINE:
                return repr(error)
            time.sleep(PACE)


def main() -> None:
    """Send, wait, print."""
    header = [add.s(number, 1).set(countdown=COUNTDOWN) for number in range(HEADER)]
    body = chord(header)(xsum.s())
    expected = {body.id: sum(number + 1 for number in range(HEADER))}
    for number in range(NUMBER):
        if number == NUMBER // 2:
            print("half", flush=True)
        task_id = str(uuid.uuid4())
        options = {"countdown": COUNTDOWN} if number % 3 == 0 else {}
        send(add.s(number, number), task_id, **options)
        expected[task_id] = 2 * number
        time.sleep(PACE)
    results = {task_id: value(task_id) for task_id in expected}
    print(json.dumps({"expected": expected, "results": results, "chord": body.id}))


main()
