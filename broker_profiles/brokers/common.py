"""Settings that every durable profile shares, whatever the broker."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Setting
from broker_profiles.settings import Environment


def settings_for_everyone(environment: Environment) -> Iterator[Setting]:
    """Yield what has nothing to do with durability: serialisation, start-up, shutdown."""
    yield from _serialisation(environment)
    yield Setting("enable_utc", True, "times mean the same on every machine")
    yield Setting("broker_connection_retry_on_startup", True, "a worker may be started before its broker")
    yield Setting("broker_connection_max_retries", None, "a broker may be away longer than 100 attempts")
    yield Setting(
        "broker_channel_error_retry",
        True,
        "a closed channel is opened again instead of ending work",
    )
    yield Setting(
        "broker_pool_acquire_timeout",
        environment.number("publish_timeout_seconds"),
        "an exhausted connection pool is an error, not an endless wait (Celery: no limit)",
        _source(environment, "publish_timeout_seconds"),
    )
    yield Setting(
        "broker_connection_timeout",
        environment.number("publish_timeout_seconds"),
        "a broker that does not answer is an error, not a hang",
        _source(environment, "publish_timeout_seconds"),
    )
    yield Setting(
        "task_publish_retry_policy",
        {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        "delay() gives up within 10 s instead of trying for ever",
    )
    yield Setting(
        "worker_cancel_long_running_tasks_on_connection_loss",
        True,
        "a task that can no longer be acknowledged is stopped, for it will run elsewhere",
    )
    yield Setting(
        "worker_pool",
        "broker_profiles.runtime.prefork:TaskPool",
        "prefork, without forgetting what a process was given just before a shutdown, which runs twice then",
    )
    yield Setting(
        "worker_soft_shutdown_timeout",
        environment.number("shutdown_seconds"),
        "a cold shutdown gives running tasks this long before they are put back (Celery: 0 s)",
        _source(environment, "shutdown_seconds"),
    )
    yield Setting(
        "result_expires",
        environment.whole("result_expires_seconds"),
        "results are kept this long, in seconds",
        _source(environment, "result_expires_seconds"),
    )


def _serialisation(environment: Environment) -> Iterator[Setting]:
    """Yield how messages are written, and which are read: JSON, signed where there is a key to sign with."""
    source = _source(environment, "signing_key_path")
    if source:
        yield Setting("task_serializer", "auth", "messages are signed JSON", source)
        yield Setting("event_serializer", "auth", "messages are signed JSON", source)
        yield Setting("accept_content", ["auth"], "a message that is not signed is not run", source)
    else:
        yield Setting("task_serializer", "json", "JSON cannot run code when it is read")
        yield Setting("accept_content", ["json"], "a message in pickle could run code in the worker")
    yield Setting("result_serializer", "json", "JSON cannot run code when it is read")
    yield Setting("result_accept_content", ["json"], "a result in pickle could run code in who reads it")


def late_acknowledgement() -> Iterator[Setting]:
    """Yield what makes a task survive its worker, on a broker that limits deliveries or returns messages."""
    yield Setting(
        "task_acks_late", True, "a message leaves the broker when its task has finished, not before"
    )
    yield Setting(
        "task_reject_on_worker_lost",
        True,
        "a task whose child process was killed goes back to the queue",
    )
    yield Setting(
        "worker_prefetch_multiplier",
        1,
        "no message waits behind a long task while another process is free (Celery: 4)",
    )
    yield Setting(
        "worker_deduplicate_successful_tasks",
        True,
        "a message delivered again after its result was stored is not run again",
    )


def _source(environment: Environment, option: str) -> str:
    return environment.source(option)
