"""DEL-3: a broker is not filled by what it has delivered: of an acknowledged task nothing is left.

What is kept until somebody cleans up makes every broker a full one in the end.
"""

from __future__ import annotations

import contextlib

from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-3"

#: How many tasks run, and how many records more there may be of what else goes on: events, replies, leases.
_TASKS, _DRIFT = 200, 20

#: How long all of them may take to run, and then to be gone from the broker, in seconds.
_DRAINED, _GONE = 60.0, 15.0


@case("200 tasks run and are acknowledged, and nobody cleans up")
def acknowledged(stage: Stage) -> None:
    """Count what the broker holds, let tasks without results run, and count until it is as little again."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 2), 20)
    before = stage.facts["records before"] = stage.server.stored()

    def is_gone() -> bool:
        stage.facts["records after"] = stage.server.stored()
        return bool(stage.facts["records after"] <= before)

    stage.wait_for(stage.client.sent("note", _TASKS), _DRAINED)
    with contextlib.suppress(TooLate):
        stage.wait(is_gone, _GONE, "it holds as little as before")
    grown = stage.facts["records after"] - before
    stage.require(
        grown <= _DRIFT,
        f"{_TASKS} tasks have run and the broker holds {grown:,} records more than before, "
        f"{_GONE:g} s after the last",
    )
