"""What every broker over AMQP 0-9-1 shares: its address, its settings and its promises.

The address is always spelt `pyamqp://`: kombu replaces `amqp://` by the package `librabbitmq` wherever that
happens to be installed, and a worker does not get far with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from broker_profiles.brokers.common import late_acknowledgement, settings_for_everyone
from broker_profiles.profile import Guarantees, Mode, Setting
from broker_profiles.settings import Environment

_CLASSIC = "fast: classic queues set nothing aside"
_NO_PATIENCE = (
    "before RabbitMQ 3.12 a queue cannot ask for patience: a task longer than the server's consumer_timeout "
    "(30 minutes unless set) runs again"
)
_TWO_BEATS = "RabbitMQ changes no state together with a message: two beats each send every tick; run one"

_OPTIONS = ("publish_timeout_seconds", "delivery_limit", "dead_letter_seconds", "dead_letter_limit")

_ALWAYS = frozenset("DEL-7 ETA-3 ORD-2 CTL-1 CTL-2 SEC-1 CFG-1".split())


def pyamqp_address(environment: Environment) -> Setting:
    """Return where RabbitMQ is, with py-amqp's scheme."""
    address = environment.address("rabbitmq")
    parts = [part.replace("amqp://", "pyamqp://", 1) for part in address.url.split(";")]
    return Setting(
        "broker_url", ";".join(parts), "never the package librabbitmq, though installed", address.variable
    )


def _tls(url: str) -> dict[str, Any] | None:
    """Return what TLS has to verify."""
    first = urlsplit(url.split(";")[0])
    if first.scheme != "amqps":
        return None
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": first.hostname}


def amqp_settings(
    environment: Environment, mode: Mode, transport: str, why_transport: str
) -> Iterator[Setting]:
    """Yield the settings of a broker over AMQP, by the transport in that module of `transports`."""
    url = pyamqp_address(environment)
    tls = _tls(url.value)
    yield url
    yield Setting(
        "broker_transport",
        f"broker_profiles.transports.{transport}:" + ("Transport" if tls is None else "SSLTransport"),
        why_transport,
    )
    if tls is not None:
        yield Setting("broker_use_ssl", tls, "the server's certificate and name are verified")
    yield from settings_for_everyone(environment)
    yield Setting("broker_heartbeat", 3, "a half-open connection is found within 8 s (Celery: 4 minutes)")
    yield Setting("broker_heartbeat_checkrate", 4, "and not later for want of looking")
    yield Setting(
        "control_queue_durable",
        True,
        "RabbitMQ 4.3 refuses queues that are neither durable nor exclusive",
    )
    yield Setting("control_queue_exclusive", False, "a durable queue cannot be exclusive")
    yield Setting("event_queue_durable", True, "as for the control queue")
    yield Setting("event_queue_exclusive", False, "as for the control queue")
    if mode is Mode.DURABLE:
        yield from _durable(environment)
    else:
        yield from _fast()


def _durable(environment: Environment) -> Iterator[Setting]:
    yield from late_acknowledgement()
    yield Setting(
        "broker_transport_options",
        {
            "confirm_publish": True,
            "confirm_timeout": environment.number("publish_timeout_seconds"),
            "read_timeout": environment.number("publish_timeout_seconds"),
            "write_timeout": environment.number("publish_timeout_seconds"),
            "adjustable_prefetch": True,
            "delivery_limit": environment.whole("delivery_limit"),
            "dead_letter_seconds": environment.number("dead_letter_seconds"),
            "dead_letter_limit": environment.whole("dead_letter_limit"),
        },
        "delay() returns once RabbitMQ has the message on a majority of its nodes; a pool can grow; "
        "deliveries before a dead letter; how long and how many are kept",
        ", ".join(filter(None, map(environment.source, _OPTIONS))),
    )
    yield Setting("task_default_queue_type", "quorum", "replicated, and counts deliveries")
    yield Setting("task_create_missing_queue_type", "quorum", "as for the default queue")
    yield Setting("task_default_exchange_type", "topic", "native delayed delivery needs topic exchanges")
    yield Setting("task_create_missing_queue_exchange_type", "topic", "as for the default exchange")
    yield Setting(
        "broker_native_delayed_delivery_queue_type",
        "quorum",
        "what waits for its time is replicated too",
    )


def _fast() -> Iterator[Setting]:
    yield Setting(
        "task_acks_late",
        False,
        "a message is acknowledged on receipt: a killed worker loses its tasks",
    )
    yield Setting("worker_prefetch_multiplier", 32, "fewer pauses between short tasks")
    yield Setting("task_queue_max_priority", 10, "classic queues have ten priorities")
    yield Setting(
        "broker_transport_options",
        {"confirm_publish": False},
        "delay() does not wait for RabbitMQ: a message can be lost with the connection",
    )


GUARANTEES = {
    Mode.DURABLE: Guarantees(
        kept=_ALWAYS | set("DEL-1 DEL-2 DEL-3 DEL-4 DEL-5 DEL-6 DEL-8 ETA-1 ETA-2".split()),
        not_offered={
            "ORD-1": "quorum queues serve two urgent messages for each other one on RabbitMQ 4, "
            "and know no priority before",
            "BEAT-1": _TWO_BEATS,
        },
        priority_levels=2,
        since={"DEL-4": ((3, 12), _NO_PATIENCE)},
    ),
    Mode.FAST: Guarantees(
        kept=_ALWAYS | {"ORD-1", "DEL-4"},
        not_offered={
            "DEL-1": "fast: acknowledged on receipt",
            "DEL-2": "fast: no publisher confirms",
            "DEL-3": "fast: no publisher confirms",
            "DEL-5": "fast: acknowledged on receipt",
            "DEL-6": "fast: what was prefetched returns, what runs may be lost",
            "DEL-8": _CLASSIC,
            "ETA-1": "fast: classic queues have no native delayed delivery",
            "ETA-2": "fast: delayed tasks wait in the workers",
            "BEAT-1": _TWO_BEATS,
        },
        priority_levels=10,
        since={"DEL-4": ((3, 12), _NO_PATIENCE)},
    ),
}

NOTES = {
    Mode.DURABLE: "quorum queues, publisher confirms, native delayed delivery; before RabbitMQ 3.12 the "
    "server needs a consumer_timeout above the longest task",
    Mode.FAST: "classic queues, no confirms, acknowledged on receipt",
}
