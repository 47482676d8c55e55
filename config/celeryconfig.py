"""Routes and schedule of the task package. Nothing here is about a broker: that is `BROKER_PROFILE`'s."""

from __future__ import annotations

# Routes say how urgent a task is, 9 most. None names a queue, so that every worker started without -Q
# runs every task; add {"queue": "text"} and start workers with `-Q text` to set some apart.
task_routes = {
    "tasks.heartbeat": {"priority": 9},
    "tasks.merge_counts": {"priority": 5},
    "tasks.count_*": {"priority": 1},
}

beat_schedule = {
    "heartbeat": {
        "task": "tasks.heartbeat",
        "schedule": 30.0,
        # A tick that waited longer than its interval says nothing any more; the next one does.
        "options": {"expires": 30.0},
    },
}
