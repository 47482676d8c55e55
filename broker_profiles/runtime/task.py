"""The task class of every profile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Task as CeleryTask
from celery.utils import uuid

from broker_profiles.runtime.publish import Shortcut
from broker_profiles.transports.routing import DELAYED_KEY

#: RabbitMQ's native delayed delivery counts whole seconds, and Celery refuses less than one.
_SHORTEST_DELAY = 1.0

_UNKNOWN: Any = object()


class Task(CeleryTask):  # type: ignore[misc]
    """Celery's task, sent faster where a call is plain; countdown and eta may be under a second.

    How it fails is kept with its message where that becomes a dead letter.
    """

    abstract = True
    Request = "broker_profiles.runtime.request:Request"
    _shortcut: Any = _UNKNOWN

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the task; see `celery.Task.apply_async`."""
        # The same id for both ways: a message whose fate is unknown may be sent a second time.
        task_id = task_id or uuid()
        if not (options or producer or link or link_error or shadow):
            result = self._send_plainly(args, kwargs, task_id)
            if result is not None:
                return result
        when = _soon(options.get("countdown"), options.get("eta"))
        if when is not None:
            # As a header it is kept by the leased transport as by any other, and a RabbitMQ worker
            # waits the fraction of a second itself.
            options.pop("countdown", None)
            options.pop("eta", None)
            options["headers"] = {**(options.get("headers") or {}), "eta": when.isoformat()}
        return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None, **extra: Any
    ) -> Any:
        """Return the signature of a retry, in the queue the task came from.

        Celery would send the retry of a task in a queue with a topic exchange to the default queue.
        """
        request = self.request if request is None else request
        if queue is None:
            queue = self._queue_of(request.delivery_info or {})
        return super().signature_from_request(request, args, kwargs, queue, **extra)

    def _queue_of(self, delivery_info: dict[str, Any]) -> str | None:
        key = DELAYED_KEY.sub("", delivery_info.get("routing_key") or "")
        queues = self.app.amqp.queues
        names = [name for name, queue in queues.items() if key and queue.routing_key == key]
        return names[0] if len(names) == 1 else None

    def _send_plainly(self, args: Any, kwargs: Any, task_id: str) -> Any:
        shortcut = self._shortcut
        if shortcut is _UNKNOWN or (shortcut is not None and not shortcut.current):
            shortcut = self._shortcut = Shortcut.of(self)
        if shortcut is None or not shortcut.current:
            return None
        return shortcut.send(args, kwargs, task_id)


def _soon(countdown: Any, eta: Any) -> datetime | None:
    """Return the time of a task that is due within the second, None for any other."""
    now = datetime.now(UTC)
    if countdown:
        if 0 < countdown < _SHORTEST_DELAY:
            return now + timedelta(seconds=countdown)
        return None
    if isinstance(eta, datetime) and eta.tzinfo is not None:
        left = (eta - now).total_seconds()
        return eta if left < _SHORTEST_DELAY else None
    return None
