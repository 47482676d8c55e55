"""The pool waits at a shutdown for what its processes were given, and forgets the rest.

And no death of a process is missed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import asynpool, get_implementation
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from broker_profiles import load
from broker_profiles.runtime import prefork
from broker_profiles.runtime.prefork import AsynPool, TaskPool
from broker_profiles.settings import Environment
from tests.waiting import until


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


class Processes:
    """A pool of real processes in an event loop, without the rounds in which Celery looks at them."""

    def __init__(self, **options: Any) -> None:
        self._before = get_event_loop()
        self.hub = Hub()
        set_event_loop(self.hub)
        self.pool = _WithoutRounds(processes=2, threads=False, **options)
        self.pool.register_with_event_loop(self.hub)
        self.hub.call_repeatedly(0.01, _nothing)  # so that no turn of the loop lasts longer
        self._loop = self.hub.create_loop()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn the loop until something is so; fail the test when it is not in time."""

        def turned() -> Any:
            next(self._loop)
            return condition()

        until(turned, 30, what)

    def are_ready(self) -> bool:
        return len(self.pool._pool) == len(self.pool._fileno_to_inq) == 2

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()
        self.hub.close()
        set_event_loop(self._before)


class _WithoutRounds(AsynPool):
    timers: dict[Any, float] = {}


def _nothing() -> None:
    """Be called."""


@pytest.fixture
def start() -> Iterator[Callable[..., Processes]]:
    started: list[Processes] = []

    def start(**options: Any) -> Processes:
        started.append(Processes(**options))
        return started[-1]

    yield start
    for processes in started:
        processes.close()


def _seems_to_live(process: Any, looks: int) -> list[int]:
    """Have a process seem to live the first times that its end is looked at; return when these were."""
    seen: list[int] = []
    look = process._popen.poll

    def poll(*flags: int) -> int | None:
        ended: int | None = look(*flags)
        if ended is not None and len(seen) < looks:
            seen.append(ended)
            # As the system does in the moment between the end of its pipe and its own.
            return None
        return ended

    process._popen.poll = poll
    return seen


def test_a_death_is_noticed_at_once(start: Callable[..., Processes]) -> None:
    processes = start()
    processes.until(processes.are_ready, "both are ready")
    for _ in range(5):
        victim = processes.pool._pool[0]
        seen = _seems_to_live(victim, looks=3)
        os.kill(victim.pid, signal.SIGKILL)
        processes.until(lambda victim=victim: victim not in processes.pool._pool, "the death is noticed")
        assert seen == [-signal.SIGKILL] * 3
        processes.until(processes.are_ready, "there is another")


def test_a_task_is_known_to_be_lost_at_once(start: Callable[..., Processes]) -> None:
    processes = start()
    processes.until(processes.are_ready, "both are ready")
    seen = [_seems_to_live(process, looks=1) for process in processes.pool._pool]
    result = processes.pool.apply_async(_die)
    processes.until(result.ready, "the task is lost")
    assert sorted(seen) == [[], [-signal.SIGKILL]]
    assert not result.successful()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_dies_at_its_start_is_left_to_the_rounds(start: Callable[..., Processes]) -> None:
    """Else it would be started again as fast as the machine can."""
    processes = start(initializer=_die)
    first = list(processes.pool._pool)
    for process in first:
        _seems_to_live(process, looks=10)
    processes.until(lambda: not any(process._sentinel_poll for process in first), "both pipes have closed")
    assert processes.pool._pool == first


def test_a_process_that_lives_without_its_pipe_is_kept(
    start: Callable[..., Processes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefork, "DEATH_SECONDS", 0.01)
    processes = start()
    processes.until(processes.are_ready, "both are ready")
    first = list(processes.pool._pool)
    result = processes.pool.apply_async(
        _close_pipes, ([os.fstat(process._popen.sentinel).st_ino for process in first],)
    )
    processes.until(lambda: not all(process._sentinel_poll for process in first), "a pipe has closed")
    processes.until(result.ready, "its task has ended")
    assert result.successful()
    assert processes.pool._pool == first


def _close_pipes(pipes: list[int]) -> None:
    """Close the pipe that ends with this process, as a task does that closes all that it did not open."""
    for number in range(3, 1024):
        with contextlib.suppress(OSError):
            if os.fstat(number).st_ino in pipes:
                os.close(number)
