"""A Celery worker in a thread of the test's own process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker


@contextmanager
def worker_thread(app: Celery, **options: Any) -> Iterator[None]:
    """Run a worker in a thread; leave the logging of this process as it was.

    Celery sets the level and the handlers of the root logger for its worker, and leaves them so:
    tests that come after it would not see what is logged.
    """
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        with start_worker(app, perform_ping_check=False, **options):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = [kept for kept in root.handlers if kept in handlers]
