"""A task for beat: a sign of life that anybody can read."""

from __future__ import annotations

import time
from typing import TypedDict

from tasks.app import app

#: Seconds between two runs, as the schedule in `config.celeryconfig` has it.
HEARTBEAT_SECONDS = 30

#: The result id under which the last run is kept, and its state: a result that is a success stays as it is.
_RECORD, _STATE = "tasks.heartbeat.last", "BEATING"


class Beat(TypedDict):
    """One run: the number of its tick since the epoch, and when it ran, in seconds since the epoch."""

    tick: int
    ran_at: float


@app.task(name="tasks.heartbeat")
def heartbeat() -> Beat:
    """Record that beat, the broker and a worker are alive, once a tick.

    A tick that is recorded already stays as it is, so a message that is delivered again, or sent by two
    beats, changes nothing.
    """
    now = time.time()
    beat: Beat = {"tick": int(now // HEARTBEAT_SECONDS), "ran_at": now}
    if not _shared_results():
        return beat
    last = last_heartbeat()
    if last is not None and last["tick"] >= beat["tick"]:
        return last
    app.backend.store_result(_RECORD, beat, _STATE)
    return beat


def last_heartbeat() -> Beat | None:
    """Return the last run, or None where there was none, or none that this process could read."""
    if not _shared_results():
        return None
    meta = app.backend.get_task_meta(_RECORD, cache=False)
    return meta["result"] if meta["status"] == _STATE else None


def _shared_results() -> bool:
    """Whether results can be read by other processes; those of `rpc` go to one client, `none` has none."""
    return bool(app.conf.result_backend) and not app.conf.result_backend.startswith(("rpc", "disabled"))
