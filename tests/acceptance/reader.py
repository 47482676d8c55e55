"""A process that knows task ids and nothing else: `python -m tests.acceptance.reader SECONDS < ids`."""

from __future__ import annotations

import json
import sys

from tests.acceptance.app import app
from tests.waiting import poll


def main() -> None:
    waiting = list(json.load(sys.stdin))
    found: dict[str, list[object]] = {}

    def all_found() -> bool:
        for task_id in list(waiting):
            result = app.AsyncResult(task_id)
            if result.ready():
                value = result.result
                found[task_id] = [result.state, str(value) if isinstance(value, Exception) else value]
                waiting.remove(task_id)
        return not waiting

    poll(all_found, float(sys.argv[1]), every=0.05)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
