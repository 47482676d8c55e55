"""How long RabbitMQ waits for the acknowledgement of a task: as long as any task may take.

Else it takes a task back after 30 minutes, its `consumer_timeout`, though the task runs. It then runs again
elsewhere, is taken back again, and ends among the dead letters. That a worker is dead its connection tells.
RabbitMQ 3.10 and 3.11 know the timeout of the whole server alone, and have to be configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker_profiles.profile import version_number

#: A year, in milliseconds.
_PATIENT = {"x-consumer-timeout": 365 * 86_400_000}

#: Since this version classic queues have no such timeout, and refuse the argument.
_CLASSIC_WITHOUT_TIMEOUT = (4, 3)

#: What says that a queue is not for tasks that run: those of remote control, of events and of results expire,
#: and delayed tasks only wait.
_FOR_NO_TASKS = ("x-expires", "x-message-ttl")


def with_patience(arguments: Mapping[str, Any], server_version: str) -> dict[str, Any]:
    """Return the arguments of a queue with time for the longest task; of another queue as they are."""
    kind = arguments.get("x-queue-type", "classic")
    refused = kind == "stream" or (
        kind == "classic" and version_number(server_version) >= _CLASSIC_WITHOUT_TIMEOUT
    )
    if refused or any(name in arguments for name in _FOR_NO_TASKS):
        return dict(arguments)
    return {**_PATIENT, **arguments}
