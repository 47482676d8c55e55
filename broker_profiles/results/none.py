"""No results: tasks are sent and forgotten."""

from __future__ import annotations

from collections.abc import Iterator

from broker_profiles.profile import Guarantees, Mode, ResultStore, Setting
from broker_profiles.settings import Environment

_NONE = "there is no result store"


def _settings(_environment: Environment, _mode: Mode) -> Iterator[Setting]:
    yield Setting("result_backend", "disabled://", "nothing is stored")
    yield Setting("task_ignore_result", True, "nothing is stored")
    yield Setting(
        "worker_deduplicate_successful_tasks",
        False,
        "there is no result to tell by whether a task has finished",
    )


STORE = ResultStore(
    name="none",
    title="no results",
    settings=_settings,
    guarantees=Guarantees(
        kept=frozenset({"RES-2", "RES-4"}),
        not_offered={"RES-1": _NONE, "RES-3": _NONE},
        chords=False,
    ),
)
