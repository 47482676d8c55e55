"""What every broker over the leased transport shares: its settings and its promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from broker_profiles.brokers.common import late_acknowledgement, settings_for_everyone
from broker_profiles.options import OPTIONS
from broker_profiles.profile import Guarantees, Mode, Setting
from broker_profiles.settings import Environment

#: How long a consumer that has stopped renewing keeps its messages.
LEASE_VARIABLE = OPTIONS["lease_seconds"].variable

DURABLE = Guarantees(
    kept=frozenset(
        "DEL-1 DEL-2 DEL-3 DEL-4 DEL-5 DEL-6 DEL-7 DEL-8 ETA-1 ETA-2 ETA-3 ORD-1 ORD-2 CTL-1 CTL-2"
        " BEAT-1 SEC-1 CFG-1".split()
    ),
    priority_levels=10,
)

_EARLY = "fast: acknowledged on receipt"

FAST = Guarantees(
    kept=DURABLE.kept - {"DEL-1", "DEL-5", "DEL-6"},
    not_offered={"DEL-1": _EARLY, "DEL-5": _EARLY, "DEL-6": _EARLY},
    priority_levels=10,
)

NOTES = {
    Mode.DURABLE: "leased messages, renewed while the worker lives",
    Mode.FAST: "acknowledged on receipt: a killed worker loses what it had fetched",
}

_OPTIONS = {
    "lease_seconds": "lease_seconds",
    "delivery_limit": "delivery_limit",
    "timeout_seconds": "publish_timeout_seconds",
    "dead_letter_seconds": "dead_letter_seconds",
    "dead_letter_limit": "dead_letter_limit",
}


def leased_settings(
    environment: Environment,
    mode: Mode,
    url: Setting,
    transport: str,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Setting]:
    """Yield the settings of a broker over the leased transport at `url`."""
    yield url
    yield Setting(
        "broker_transport",
        transport,
        "messages are leased and renewed, not deleted on delivery or timed out",
    )
    yield Setting(
        "broker_transport_options",
        {
            "lease_seconds": environment.number("lease_seconds"),
            "delivery_limit": environment.whole("delivery_limit"),
            "timeout_seconds": environment.number("publish_timeout_seconds"),
            "dead_letter_seconds": environment.number("dead_letter_seconds"),
            "dead_letter_limit": environment.whole("dead_letter_limit"),
            **(options or {}),
        },
        "lease, deliveries before a dead letter, wait for a broker that does not answer; how long and how "
        "many dead letters are kept",
        ", ".join(filter(None, map(environment.source, _OPTIONS.values()))),
    )
    yield from settings_for_everyone(environment)
    yield Setting(
        "beat_scheduler",
        "broker_profiles.runtime.beat:Scheduler",
        "any number of beats run: what was sent is kept beside the messages, not in a file of each",
    )
    if mode is Mode.FAST:
        yield Setting("task_acks_late", False, "a message is acknowledged on receipt")
        yield Setting("worker_prefetch_multiplier", 32, "fewer round trips between short tasks")
    else:
        yield from late_acknowledgement()
