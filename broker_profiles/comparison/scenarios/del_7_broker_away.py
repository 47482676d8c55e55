"""DEL-7: after a broker outage, or on a half-open connection, work resumes within 15 s, without a restart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from broker_profiles.comparison.client import ClientHung
from broker_profiles.comparison.scenario import PromiseBroken, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-7"

#: The bound of the promise, in seconds from the return of the broker to a task that has run.
BOUND = 15.0

#: How long is waited beyond the bound, so that a late return is told from none, in seconds.
_LATE = 60.0


@case("the network is cut for 10 s", quick=True)
def cut_shortly(stage: Stage) -> None:
    """Refuse connections, as a server that restarts does."""
    _away(stage, stage.server.cut, stage.server.heal, 10.0)


@case("the broker is away for 60 s")
def away_for_a_minute(stage: Stage) -> None:
    """Stop the server itself, for as long as a failover by hand takes."""
    _away(stage, stage.server.stop, stage.server.start, 60.0)


@case("the broker is frozen for 30 s")
def frozen(stage: Stage) -> None:
    """Leave the connections open, with nobody behind them."""
    _away(stage, stage.server.freeze, stage.server.thaw, 30.0)


@case("a network partition of 40 s")
def partition(stage: Stage) -> None:
    """Let nothing pass, and tell nobody."""
    _away(stage, stage.server.stall, stage.server.heal, 40.0)


@case("the connections there are go half open")
def half_open(stage: Stage) -> None:
    """Forget the old connections, as a firewall does; new ones work at once."""
    _away(stage, stage.server.half_open, lambda: None, 0.0)


@case("a slow and lossy network")
def lossy(stage: Stage) -> None:
    """Delay and lose packets while tasks are sent and run: it is slower, and nothing else."""
    stage.workers.start()
    stage.server.slow_down(delay=0.02, loss=0.05)
    sent = stage.client.sent("note", 50, within=90)
    stage.wait_for(sent, 90)
    stage.require_clean()


def _away(stage: Stage, leave: Callable[[], None], come_back: Callable[[], None], seconds: float) -> None:
    """Run a task, take the broker away for so long, and measure when the next task has run."""
    worker = stage.workers.start()
    before = stage.client.sent("note", 3)
    stage.wait_for(before, 30)
    leave()
    stage.pause(seconds)
    come_back()
    back = time.monotonic()
    stage.fault("broker reachable")
    sent = _send_until_taken(stage, back)
    stage.wait_for([sent], BOUND + _LATE)
    (ran,) = [event for event in stage.ledger.of("start") if event.id == sent]
    stage.require(worker.alive, "the worker ended, and somebody would have to start it again")
    stage.in_time("seconds from the broker's return to a task that runs", ran.time - back, BOUND)
    after = stage.client.sent("note", 3)
    stage.wait_for(after, 30)
    # Not that none ran twice: an acknowledgement may have been on its way when the broker went.
    stage.require(not stage.account().lost, f"lost: {stage.account().summary()}")


def _send_until_taken(stage: Stage, since: float) -> str:
    """Send again after each refusal, as a caller would, and return the id of what was taken."""
    while time.monotonic() < since + BOUND + _LATE:
        with contextlib.suppress(ClientHung):
            (answer,) = stage.client.send("note", 1, within=BOUND)
            if answer.error is None:
                return answer.id
        stage.pause(0.2)
    raise PromiseBroken(f"nothing could be sent {BOUND + _LATE:g} s after the broker was back")
