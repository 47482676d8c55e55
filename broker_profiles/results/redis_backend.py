"""Celery's results in Redis, without a part in sending."""

from __future__ import annotations

from typing import Any

from celery.backends import redis


class RedisBackend(redis.RedisBackend):  # type: ignore[misc]
    """A result backend that whoever sends a task need not reach."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing.

        Celery subscribes to the result here: a round trip for every task, which fails the sender where the
        store is away and the broker is not. Who waits for a result subscribes then, and looks first.
        """
