"""DEL-2: a broker that is killed and restarted under load loses no task whose `delay()` returned.

A task may run twice: its acknowledgement can die with the broker. None may be missing.
"""

from __future__ import annotations

from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-2"

#: How long load runs before a fault, in seconds.
_BEFORE = 1.0

#: Seconds between two tasks and the length of each: about as much as two processes can do.
_EVERY, _LENGTH = 0.05, 0.08

#: How many tasks have to have been sent before a fault, for it to be one under load.
_AT_LEAST = 20

#: How many tasks wait where answers are lost, how many of them run before, and for how many seconds they
#: are lost: enough for the slowest to ask for another one, and not for the fastest to have all.
_WAITING, _FIRST, _MUTE = 60, 3, 3.0

#: Within how many seconds everything has to have run; a lease of a dead worker is the longest part of it.
_DRAINED = 45.0


@case("the broker is killed and restarted while tasks are sent and run", quick=True)
def killed_under_load(stage: Stage) -> None:
    """Kill it in the middle of everything; a supervisor starts again what ended with it."""
    _working(stage)
    with stage.client.sending("note", _LENGTH, every=_EVERY):
        _load_runs(stage)
        stage.server.kill()
        stage.server.start()
        stage.workers.revive()
        stage.pause(2)
    _all_run(stage)


@case("the broker is stopped and started in order, twice, while tasks are sent and run")
def restarted_in_order(stage: Stage) -> None:
    """Restart it as an update does: it says goodbye, and closes its port."""
    _working(stage)
    with stage.client.sending("note", _LENGTH, every=_EVERY):
        _load_runs(stage)
        for _ in range(2):
            stage.server.stop()
            stage.server.start()
            stage.workers.revive()
            stage.pause(2)
    _all_run(stage)


@case("the broker is killed and restarted in the middle of a task, with others waiting")
def killed_in_the_middle_of_a_task(stage: Stage) -> None:
    """Kill it while one task runs and five wait behind it, fetched ahead or not."""
    stage.workers.start(concurrency=1)
    stage.client.sent("note", 1)
    (running,) = stage.client.sent("note", 1, 6.0)
    stage.client.sent("note", 5)
    stage.wait_for([running], 20, kind="start")
    stage.server.kill()
    stage.server.start()
    stage.workers.revive()
    _all_run(stage)
    runs = [event for event in stage.ledger.of("start") if event.id == running]
    stage.facts["runs of the interrupted task"] = len(runs)


@case("the broker is killed right after the first task of a new queue")
def new_queue(stage: Stage) -> None:
    """Send the first task that there ever was, then kill the broker: what was just made has to last too."""
    first = stage.client.sent("note", 1)
    stage.server.kill()
    stage.server.start()
    stage.workers.start()
    stage.wait_for([*first, stage.sends_again(30).id], 30)
    stage.require_clean()


@case("the broker's answers are lost for some seconds, and then it is killed and restarted")
def answers_lost(stage: Stage) -> None:
    """Let it hear and not be heard with many tasks waiting: what it hands out in that time nobody gets.

    The worker talks to it about tasks alone, so that whatever it asks for is a task.
    """
    stage.set(worker_enable_remote_control=False)
    stage.workers.start("--without-mingle", "--without-gossip", "--without-heartbeat", concurrency=1)
    sent = stage.client.sent("note", _WAITING, _LENGTH)
    stage.wait(lambda: len(stage.ledger.ids("finish")) >= _FIRST, 20, "the first tasks have run")
    stage.server.mute()
    stage.pause(_MUTE)
    stage.facts["had not started when the broker was killed"] = len(set(sent) - stage.ledger.ids("start"))
    stage.server.kill()
    stage.server.start()
    stage.workers.revive()
    _all_run(stage)


def _working(stage: Stage) -> None:
    """Start a worker and a client, and see them work."""
    stage.workers.start()
    stage.wait_for(stage.client.sent("note", 1), 20)


def _load_runs(stage: Stage) -> None:
    """Return when tasks have been sent for some time, and when many have been on a busy machine too."""
    stage.pause(_BEFORE)
    stage.wait(lambda: len(stage.ledger.ids("sent")) > _AT_LEAST, 20, "tasks are sent")


def _all_run(stage: Stage) -> None:
    """Send one more task and let everything run; what was refused may have run or not."""
    stage.sends_again(30)
    stage.wait_for(stage.ledger.ids("sent"), _DRAINED, what="whose delay() returned have not run")
    verdict = stage.account()
    stage.facts["ran again after it had finished"] = len(verdict.duplicated)
    stage.require(not verdict.unexpected, verdict.summary())
