"""Results as messages back to the client that asked, over RabbitMQ: nothing to store, one reader."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Guarantees, Mode, ResultStore, Setting
from broker_profiles.results.common import bounded_wait
from broker_profiles.settings import Environment

ONLY_RABBITMQ = "rpc results travel over RabbitMQ; choose another store"


def _settings(environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting("result_backend", "rpc://", "a result is a message to the process that sent the task")
    yield from bounded_wait(environment)
    yield Setting("result_persistent", True, "results survive a restart of RabbitMQ")
    yield Setting("worker_deduplicate_successful_tasks", False, "no worker can read the results of another")


STORE = ResultStore(
    name="rpc",
    title="messages to the client",
    settings=_settings,
    guarantees=Guarantees(
        kept=frozenset({"RES-2", "RES-3", "RES-4"}),
        not_offered={"RES-1": "rpc: only the process that sent the task can read its result"},
        chords=False,
    ),
    backends={"rpc": "broker_profiles.results.rpc_backend:RPCBackend"},
    only_over="rabbitmq",
    only_over_reason=ONLY_RABBITMQ,
)
