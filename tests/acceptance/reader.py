"""A process that knows task ids and nothing else: `python -m tests.acceptance.reader SECONDS < ids`."""

from __future__ import annotations

import json
import sys
import time

from tests.acceptance.app import app


def main() -> None:
    deadline = time.monotonic() + float(sys.argv[1])
    waiting = list(json.load(sys.stdin))
    found: dict[str, list[object]] = {}
    while waiting and time.monotonic() < deadline:
        for task_id in list(waiting):
            result = app.AsyncResult(task_id)
            if result.ready():
                value = result.result
                found[task_id] = [result.state, str(value) if isinstance(value, Exception) else value]
                waiting.remove(task_id)
        time.sleep(0.05)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
