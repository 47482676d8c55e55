"""DEL-2: of thousands of tasks that were sent each one runs, and nothing has to happen to the broker.

A defect that costs one in a thousand shows in no case with a few hundred.
"""

from __future__ import annotations

import time
import uuid

from celery import Celery

from broker_profiles.comparison.ledger import recorder
from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-2"

#: How many tasks there are, how many are sent at a time, and after how many seconds no more are.
_TASKS, _AT_A_TIME, _ENOUGH = 3_000, 250, 20.0

#: Within how many seconds those that were sent at a time have to have run.
_DRAINED = 40.0


@case("3,000 tasks are sent, and nothing happens to anybody")
def thousands(stage: Stage) -> None:
    """Send them part by part, so that a slow broker gets fewer: as many as it can do in 20 s."""
    stage.workers.start(concurrency=2)
    began, number = time.monotonic(), 0
    while number < _TASKS and time.monotonic() - began < _ENOUGH:
        stage.wait_for(stage.client.call(send_together, _AT_A_TIME, within=60), _DRAINED)
        number += _AT_A_TIME
    stage.facts["tasks"] = number
    stage.require_clean()


def send_together(app: Celery, count: int) -> list[str]:
    """In the client: send so many tasks over one producer, in a batch where it makes any; return the ids."""
    task, ledger = app.tasks["comparison.note"], recorder()
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with app.producer_pool.acquire(block=True) as producer:
        with producer.batch():
            for id_ in ids:
                ledger.record("sending", id_, "note")
                task.apply_async(task_id=id_, producer=producer)
        for id_ in ids:
            ledger.record("sent", id_)
    return ids
