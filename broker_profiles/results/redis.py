"""Results in Redis (or Valkey): one key a result, which Redis expires."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Mode, ResultStore, Setting
from broker_profiles.results.common import FULL, bounded_retries, retried_operations
from broker_profiles.settings import Environment


def _settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    address = environment.address("redis", results=True)
    url = address.url
    if address.scheme == "rediss" and "ssl_cert_reqs" not in url:
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    if address.scheme == "unix":
        url = url.replace("unix://", "socket://", 1)
    yield Setting("result_backend", url, "one key a result, expired by Redis", address.variable)
    timeout = environment.number("result_timeout_seconds")
    source = environment.source("result_timeout_seconds")
    for name in ("redis_socket_timeout", "redis_socket_connect_timeout"):
        yield Setting(name, timeout, "a Redis that hangs is an error (Celery: 120 s)", source)
    yield Setting("redis_socket_keepalive", True, "a dead connection is noticed")
    yield Setting(
        "redis_backend_health_check_interval",
        25,
        "a half-open connection is noticed before its use",
    )
    yield from bounded_retries(environment)
    yield from retried_operations()


STORE = ResultStore(
    name="redis",
    title="Redis >= 6.2 or Valkey",
    settings=_settings,
    guarantees=FULL,
    modules=("redis",),
    extra="redis",
    system="redis",
    address="redis",
    backends=dict.fromkeys(("redis", "rediss"), "broker_profiles.results.redis_backend:RedisBackend"),
)
