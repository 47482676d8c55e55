"""Results in this process, for unit tests."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Guarantees, Mode, ResultStore, Setting
from broker_profiles.results.common import bounded_wait
from broker_profiles.settings import Environment


def _settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting("result_backend", "leased-sqlite://", "results stay in this process")
    yield from bounded_wait(environment)


STORE = ResultStore(
    name="memory",
    title="in process, for unit tests",
    settings=_settings,
    guarantees=Guarantees(
        kept=frozenset({"RES-2", "RES-3", "RES-4"}),
        not_offered={"RES-1": "no other process can read them"},
    ),
    only_over="memory",
    only_over_reason="results in memory can be read by no other process; choose another store",
)
