"""The pool waits at a shutdown for what its processes were given, and forgets the rest."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import asynpool, get_implementation

from broker_profiles import load
from broker_profiles.runtime.prefork import AsynPool, TaskPool
from broker_profiles.settings import Environment


class Job:
    """As much of a pool's job as `flush` looks at."""

    def __init__(self, cache: dict[int, Job], number: int, process: Any, *, accepted: bool = False) -> None:
        self._write_to = process
        self._scheduled_for = None
        self._accepted = accepted
        self._cache = cache
        self._number = number
        cache[number] = self

    def discard(self) -> None:
        self._cache.pop(self._number)


def process(*, alive: bool = True) -> Any:
    return SimpleNamespace(_is_alive=lambda: alive, inqW_fd=7)


@pytest.fixture
def pool() -> Any:
    pool = object.__new__(AsynPool)
    pool.__dict__.update(
        _state=asynpool.RUN,
        synack=False,
        _cache={},
        outbound_buffer=deque(),
        _active_writers=set(),
        _active_writes=set(),
        _busy_workers=set(),
        maintain_pool=lambda: None,
    )
    return pool


def test_what_a_process_was_given_is_kept_and_what_waits_is_forgotten(pool: Any) -> None:
    cache = pool._cache
    running = Job(cache, 1, process(), accepted=True)
    given = Job(cache, 2, process())
    waiting = Job(cache, 3, None)
    pool.outbound_buffer.append(waiting)
    pool.flush()
    assert pool._cache is cache
    assert set(cache.values()) == {running, given}
    assert not pool.outbound_buffer
    assert pool._busy_workers == {7}


def test_what_was_given_to_a_dead_process_is_forgotten(pool: Any) -> None:
    Job(pool._cache, 1, process(alive=False))
    pool.flush()
    assert pool._cache == {}


def test_a_message_is_written_to_its_end(pool: Any) -> None:
    written = []

    def _write_job() -> Any:
        for part in range(3):
            written.append(part)
            yield

    writer = _write_job()
    next(writer)
    job = Job(pool._cache, 1, process())
    job._writer = lambda: writer  # type: ignore[attr-defined]
    pool._active_writers.add(writer)
    pool.flush()
    assert written == [0, 1, 2]
    assert job in pool._cache.values()
    assert not pool._active_writers


def test_every_profile_but_a_baseline_has_this_pool() -> None:
    for name in ("embedded", "rabbitmq", "redis:fast"):
        settings = {setting.name: setting.value for setting in load(name).settings(Environment({}))}
        assert get_implementation(settings["worker_pool"]) is TaskPool
    stock = {setting.name for setting in load("stock-redis").settings(Environment({}))}
    assert "worker_pool" not in stock
