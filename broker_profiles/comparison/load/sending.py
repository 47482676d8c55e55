"""What a client does to send a load: functions that run in its process, each with the application.

What they send is the task `mark`. Each returns the `ids` of what it sent, and the time and the
processor time of its process that this took, in `seconds` and `cpu` seconds.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery.utils import uuid
from kombu.serialization import dumps

from broker_profiles.comparison.load.rates import Schedule

_TASK = "comparison.mark"

#: How many messages are stored together where that is possible.
_BATCH = 1000

#: How many tasks are sent between two looks at the clock.
_BETWEEN = 10


def one_by_one(app: Any, count: int, seconds: float, took: float = 0.0, size: int = 0) -> dict[str, Any]:
    """Call `delay()` so many times, or as often as there is time for in so many seconds.

    The tasks take `took` seconds each and carry `size` bytes of text.
    """
    task = app.tasks[_TASK]
    arguments = (took, _text(size)) if size else (took,) if took else ()
    cpu, began = time.process_time(), time.monotonic()
    ids = list(_sent(lambda: task.delay(*arguments).id, count, seconds))
    return {"ids": ids, **_spent(cpu, began)}


def bulk(app: Any, count: int, seconds: float) -> dict[str, Any]:
    """Send as many over one producer, in one of kombu's batches.

    `batched` says whether the transport makes one of it; the others send each task at once.
    """
    task = app.tasks[_TASK]
    with app.producer_pool.acquire(block=True) as producer:
        cpu, began = time.process_time(), time.monotonic()
        with producer.batch():
            ids = list(_sent(lambda: task.apply_async(producer=producer).id, count, seconds))
        return {"ids": ids, "batched": bool(producer.supports_batch_publish), **_spent(cpu, began)}


def fill(app: Any, count: int, seconds: float) -> int:
    """Send as many as fast as can be, and return how many: not a measurement, but its stage."""
    queue = app.amqp.queues[app.conf.task_default_queue]
    message = app.amqp.create_task_message(uuid(), _TASK, (), {}, ignore_result=True)
    return copies(app, message, queue.exchange.name, queue.routing_key, count, seconds)


def copies(app: Any, message: Any, exchange: str, routing_key: str, count: int, seconds: float) -> int:
    """Send copies of a task's message, each with an id of its own, and return how many there was time for.

    This is without what Celery does for each call, and nobody waits for the confirm of each.
    """
    content_type, encoding, body = dumps(message.body, "json")
    where = {"exchange": exchange, "routing_key": routing_key}

    with app.connection_for_write() as connection:
        unconfirmed = connection.transport.driver_type == "amqp"
        batched = connection.transport.implements.batch_publish
        if unconfirmed:
            patient = {"confirm_publish": False, "read_timeout": seconds}
        else:
            patient = {"timeout_seconds": seconds} if batched else {}
        connection.transport_options = {**connection.transport_options, **patient}
        channel = connection.default_channel
        queue = app.amqp.queues[app.conf.task_default_queue].bind(channel)
        queue.declare()
        batch = channel.create_publish_batch(max_size=_BATCH) if batched else None
        publish = channel.basic_publish if batch is None else batch.publish

        def send() -> str:
            id_: str = uuid()
            headers = {**message.headers, "id": id_, "root_id": id_}
            properties = {**message.properties, "correlation_id": id_, "delivery_mode": 2}
            publish(channel.prepare_message(body, 0, content_type, encoding, headers, properties), **where)
            return id_

        sent = 0
        for sent, _ in enumerate(_sent(send, count, seconds), 1):
            if unconfirmed and sent % _BATCH == 0:
                # Answered when all before it is taken: RabbitMQ holds up whoever is too far ahead of it, and
                # a second later the system gives the connection up.
                queue.queue_declare(passive=True)
        if batch is not None:
            batch.flush()
            batch.close()
        return sent


def paced(app: Any, rate: float, seconds: float) -> dict[str, Any]:
    """Send at a fixed rate. `intended` is id -> when it ought to have been sent."""
    task = app.tasks[_TASK]
    schedule = Schedule(rate, seconds)
    cpu, began = time.process_time(), time.monotonic()
    intended = {task.delay().id: due for due in schedule.paced(time.monotonic, time.sleep)}
    return {"ids": list(intended), "intended": intended, **_spent(cpu, began)}


def _sent(send: Callable[[], str], count: int, seconds: float) -> Iterator[str]:
    deadline = time.monotonic() + seconds
    for number in range(count):
        yield send()
        if number % _BETWEEN == 0 and time.monotonic() > deadline:
            return


def _spent(cpu: float, began: float) -> dict[str, float]:
    return {"began": began, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}


def _text(size: int) -> str:
    """Return so many characters that no store can make smaller."""
    return base64.b64encode(random.Random(size).randbytes(size)).decode()[:size]
