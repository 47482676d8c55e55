"""Memory as a broker: tests of one process, with the behaviour of the others and nothing to start."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.brokers.leased import leased_settings
from broker_profiles.profile import Broker, Guarantees, Mode, Setting
from broker_profiles.settings import Environment

_ONE_PROCESS = "everything lives and dies with its one process"


def _settings(environment: Environment, mode: Mode) -> Iterator[Setting]:
    yield from leased_settings(
        environment,
        mode,
        Setting("broker_url", "memory://", "messages stay in this process"),
        "broker_profiles.transports.memory:Transport",
    )


BROKER = Broker(
    name="memory",
    title="in process, for unit tests",
    default_results="memory",
    settings=_settings,
    guarantees={
        Mode.DURABLE: Guarantees(
            kept=frozenset("DEL-4 DEL-5 DEL-6 DEL-8 ETA-2 ETA-3 ORD-1 ORD-2 CTL-1 CTL-2 CFG-1".split()),
            not_offered={
                "DEL-1": _ONE_PROCESS,
                "DEL-2": _ONE_PROCESS,
                "DEL-3": _ONE_PROCESS,
                "DEL-7": "there is no server that could be away",
                "ETA-1": _ONE_PROCESS,
                "BEAT-1": _ONE_PROCESS,
                "SEC-1": "there is no network",
            },
            priority_levels=10,
        )
    },
    notes={Mode.DURABLE: _ONE_PROCESS},
    address="memory",
    in_process=True,
)
