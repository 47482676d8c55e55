"""A worker that waits for its broker tries again often enough to be back within 15 s of it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import kombu.connection
import pytest
from celery import Celery

from broker_profiles import configure


def pauses(app: Celery, monkeypatch: pytest.MonkeyPatch, count: int) -> list[float]:
    """Return the first pauses, in seconds, of a worker of this application whose broker is away."""
    kept: list[float] = []

    def retry(
        fun: Any, catch: Any, args: Any, kwargs: Any, errback: Any, max_retries: Any, *interval: Any, **_: Any
    ) -> None:
        start, step, longest, _ = interval
        kept.extend(islice((min(start + number * step, longest) for number in range(100)), count))

    monkeypatch.setattr(kombu.connection, "retry_over_time", retry)
    # As Celery's consumer calls it.
    app.connection_for_read().ensure_connection(lambda *_: None, None, callback=lambda: None)
    return kept


def test_a_worker_never_waits_longer_than_5_s(monkeypatch: pytest.MonkeyPatch) -> None:
    app = configure(Celery("t", set_as_current=False), "rabbitmq", environ={})
    assert pauses(app, monkeypatch, 20) == [2, 4] + [5] * 18


def test_a_baseline_waits_as_celery_does(monkeypatch: pytest.MonkeyPatch) -> None:
    app = configure(Celery("t", set_as_current=False), "stock-rabbitmq", environ={})
    assert max(pauses(app, monkeypatch, 20)) == 30
