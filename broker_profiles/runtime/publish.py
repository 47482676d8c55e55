"""The short way of a plain `delay()` into a leased store.

Most of the time that Celery takes to send a task goes into what is the same for every call: options,
route, retry policy, and copies of the queue that is to be declared. Here that is worked out once for each
task. A call that uses anything else - options, callbacks, signals, a custom router, a parent task - takes
Celery's own way; both give the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from celery import Task as CeleryTask
from celery import signals
from kombu import Producer
from kombu.exceptions import OperationalError
from kombu.serialization import dumps

from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports.channel import Channel

#: Options that a task may have and still be sent the short way; `serializer` has a default.
_HARMLESS = frozenset({"serializer", "ignore_result"})

_PERSISTENT = 2

#: Seconds within which a broker has failed rather than not answered.
_AT_ONCE = 0.5


class Shortcut:
    """What is the same for every plain call of one task."""

    def __init__(self, task: Any, queue: Any) -> None:
        self._task = task
        self._app = task._get_app()
        self._amqp = self._app.amqp
        self._router = self._amqp.router
        self._queue = queue
        self._queue_hash = hash(queue)
        self._serializer = task.serializer or self._app.conf.task_serializer

    @classmethod
    def of(cls, task: Any) -> Shortcut | None:
        """Return the shortcut of a task, or None where its calls are not plain."""
        app = task._get_app()
        conf = app.conf
        options = {name for name, value in task._get_exec_options().items() if value is not None}
        if (
            options - _HARMLESS
            or type(task).shadow_name is not CeleryTask.shadow_name
            or task.priority is not None
            or conf.task_protocol != 2
            or conf.task_send_sent_event
            or conf.task_compression
            or not all(isinstance(route, Mapping) for route in _routes(conf.task_routes))
        ):
            return None
        queue = app.amqp.router.route({}, task.name, (), {}, task).get("queue")
        if queue is None or queue.exchange.type != "direct" or queue.exchange.delivery_mode not in (None, 2):
            return None
        return cls(task, queue)

    @property
    def current(self) -> bool:
        """Whether nothing has changed that it was worked out from, and nobody listens."""
        return (
            self._app.amqp is self._amqp
            and self._amqp.router is self._router
            and not self._app.conf.task_always_eager
            and not signals.before_task_publish.receivers
            and not signals.after_task_publish.receivers
            and not signals.task_sent.receivers
            and self._app.current_worker_task is None
            and _is_celerys(CeleryTask.apply_async, "celery/app/task.py")
            and _is_celerys(type(self._app).send_task, "celery/app/base.py")
            and _is_celerys(Producer.publish, "kombu/messaging.py")
        )

    def send(self, args: Any, kwargs: Any, task_id: str) -> Any:
        """Send the task; returns its result, or None if Celery's own way has to be taken."""
        task, app = self._task, self._app
        if task.typing:
            task.__header__(*(args or ()), **(kwargs or {}))
        message = self._amqp.create_task_message(
            task_id,
            task.name,
            args,
            kwargs,
            reply_to=app.thread_oid,
            ignore_result=task.ignore_result,
        )
        began = time.monotonic()
        content_type, encoding, body = dumps(message.body, serializer=self._serializer)
        properties = {**message.properties, "delivery_mode": _PERSISTENT}
        with app.producer_or_acquire() as producer:
            try:
                channel = producer.channel
                if not isinstance(channel, Channel):
                    return None
                if self._queue_hash not in channel.connection.client.declared_entities:
                    producer.maybe_declare(self._queue)
                if not task.ignore_result:
                    app.backend.on_task_call(producer, task_id)
                prepared = channel.prepare_message(
                    body, 0, content_type, encoding, message.headers, properties
                )
                channel.basic_publish(prepared, "", self._queue.name)
            except StoreUnavailable as error:
                if time.monotonic() - began > _AT_ONCE:
                    # Every further attempt would wait as long, and might store the message once more.
                    raise OperationalError(str(error)) from error
                # Celery's way tries again, connects anew, and says what is wrong.
                return None
        result = task.AsyncResult(task_id)
        result.ignored = task.ignore_result
        return result


def _is_celerys(function: Any, file: str) -> bool:
    """Return whether a function is still the original: tracers such as Sentry's replace some.

    Told by the file its code is from, for `functools.wraps` hides the rest.
    """
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.replace(os.sep, "/").endswith(file)


def _routes(routes: Any) -> list[Any]:
    if not routes:
        return []
    return list(routes) if isinstance(routes, list | tuple) else [routes]
