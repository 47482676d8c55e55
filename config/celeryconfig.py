"""Routes and schedule of the task package. Nothing here is about a broker: that is `BROKER_PROFILE`'s."""

from __future__ import annotations

# Routes say how urgent a task is, 9 most, and where it goes. All go to the default queue, so that every
# worker started without -Q runs every task; name another, and start workers with `-Q celery,another`, to
# set some apart. A route always names its queue: without one Celery 5.7 cannot delay the task on RabbitMQ,
# nor end a chord with it where results are in a database.
task_routes = {
    "tasks.heartbeat": {"queue": "celery", "priority": 9},
    "tasks.merge_counts": {"queue": "celery", "priority": 5},
    "tasks.count_*": {"queue": "celery", "priority": 1},
}

beat_schedule = {
    "heartbeat": {
        "task": "tasks.heartbeat",
        "schedule": 30.0,
        # A tick that waited longer than its interval says nothing any more; the next one does.
        "options": {"expires": 30.0},
    },
}
