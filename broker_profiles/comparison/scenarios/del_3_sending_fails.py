"""DEL-3: `delay()` returns once the broker holds the message, and is an error within 10 s where it cannot.

Each call is timed by itself and watched, so that one that hangs is told of. So are `apply_async()` with a
priority and with a countdown, which take other ways through Celery and the broker.
"""

from __future__ import annotations

import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from celery import Celery

from broker_profiles.comparison.client import Client, Sent
from broker_profiles.comparison.scenario import NotApplicable, TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "DEL-3"

#: The bound of the promise, in seconds, and how long a call is watched before it is said to hang.
BOUND, PATIENCE = 10.0, 15.0

#: How long all that was sent may take to run at the end, in seconds.
_DRAINED = 30.0

_TOO_LARGE = 100  # MiB

#: The ways to send a task, with their options.
_WAYS: dict[str, dict[str, Any]] = {
    "delay()": {},
    "a call with a priority": {"priority": 5},
    "a call with a countdown": {"countdown": 1},
}


@case("the broker refuses connections", quick=True)
def refused(stage: Stage) -> None:
    """Close its port: to a client with a connection, and to one without."""
    clients = _with_and_without_connections(stage)
    stage.server.cut()
    _fails_in_time(stage, *clients)
    stage.server.heal()
    _sends_and_runs(stage)


@case("the broker is silent: it takes connections and answers nothing", quick=True)
def silent(stage: Stage) -> None:
    """Freeze it: to a client with a connection, and to one without."""
    clients = _with_and_without_connections(stage)
    stage.server.freeze()
    _fails_in_time(stage, *clients)
    stage.server.thaw()
    _sends_and_runs(stage)


@case("the network between client and broker carries nothing")
def partition(stage: Stage) -> None:
    """Stall the network: to a client with a connection, and to one without."""
    clients = _with_and_without_connections(stage)
    stage.server.stall()
    _fails_in_time(stage, *clients)
    stage.server.heal()
    _sends_and_runs(stage)


@case("the broker dies while delay() waits for it")
def dies_while_delay_waits(stage: Stage) -> None:
    """Freeze it so that a call waits, then kill it."""
    _ = stage.server.link  # a file dies with the client alone
    stage.client.sent("note", 1)
    with stage.client.sending("note", every=0.1) as answers:
        stage.pause(0.5)
        stage.server.freeze()
        stage.pause(1.0)
        stage.server.kill()
        stage.pause(1.0)
    _in_time(stage, answers)
    stage.require(any(answer.error for answer in answers), "no call failed while the broker was dead")
    stage.server.start()
    _sends_and_runs(stage)


@case("the broker is full")
def full(stage: Stage) -> None:
    """Leave it no room: it has to say so. What it takes all the same has to survive its death."""
    stage.client.sent("note", 1)
    stage.server.fill()
    # Of a kind that no database makes small enough for a gap that it has left.
    answers = stage.client.send("note", 2, 0.0, secrets.token_hex(100_000), within=2 * PATIENCE)
    _in_time(stage, answers)
    refused = stage.facts["refused while full"] = sum(1 for answer in answers if answer.error)
    stage.require(refused, "delay() returned each time though the broker had no room")
    stage.server.kill()
    stage.server.start()
    stage.server.heal()
    _sends_and_runs(stage)


@case("the broker is killed while tasks are sent without a pause", quick=True)
def killed_right_after(stage: Stage) -> None:
    """Kill it while many are on their way: whatever `delay()` has returned for has to be there afterwards."""
    stage.client.sent("note", 1)
    with contextlib.suppress(NotApplicable):
        stage.server.slow_down(delay=0.05)  # a longer way, with more on it at any moment
    with stage.client.sending("note", every=0.01):
        stage.pause(2)
        stage.server.kill()
    stage.server.start()
    _sends_and_runs(stage)


@case("the queue is deleted behind the client's back", quick=True)
def queue_deleted(stage: Stage) -> None:
    """Delete it: the next call fails, or makes the queue again, and never loses the task in silence."""
    stage.client.send("note")
    stage.another_client().call(delete_queue)
    answers = stage.client.send("note", 3, within=3 * PATIENCE)
    _in_time(stage, answers)
    stage.facts["refused"] = sum(1 for answer in answers if answer.error)
    stage.workers.start()
    sent = {answer.id for answer in answers if not answer.error}
    stage.wait_for(sent, _DRAINED, what="whose delay() returned have not run")
    stage.wait_for(stage.client.sent("note", 1), _DRAINED)


@case("a message of 100 MB is sent")
def oversize(stage: Stage) -> None:
    """Send one that most brokers cannot take: it runs or is refused in time, and the next one is sent."""
    answer = Sent(*stage.client.call(send_large, _TOO_LARGE, within=90))
    stage.facts["100 MB"] = answer.error or f"sent in {answer.seconds:.1f} s, as {answer.id}"
    if answer.error:
        _in_time(stage, [answer])
    _sends_and_runs(stage)


def delete_queue(celery: Celery) -> None:
    """Delete the queue of this run, in a client process."""
    with celery.connection_for_write() as connection:
        queue = celery.amqp.queues[celery.conf.task_default_queue].bind(connection.default_channel)
        # Some transports delete nothing that the same process has not declared.
        queue.declare()
        queue.delete()


def send_large(celery: Celery, mebibytes: int) -> list[Any]:
    """Send a task with so large an argument, in a client process; return `[id, seconds, error]`."""
    # Imported here, for only a client's process has an application.
    from broker_profiles.comparison.clientside import send_one

    return send_one(celery, "note", [0.0, "x" * (mebibytes << 20)], {}, {})


def connect(celery: Celery, number: int) -> None:
    """Have so many connections, in a client process that has sent a task over each."""
    from broker_profiles.comparison.clientside import send_one

    producers = [celery.producer_pool.acquire(block=True) for _ in range(number)]
    for producer in producers:
        send_one(celery, "note", [], {}, {"producer": producer})
        producer.release()


def send_each_way(celery: Celery, ways: list[dict[str, Any]], seconds: float) -> list[list[Any] | None]:
    """Send a task in each way, all at once, in a client process; return `[id, seconds, error]` of each.

    None of one that has not returned after so many seconds.
    """
    from broker_profiles.comparison.clientside import send_one

    pool = ThreadPoolExecutor(len(ways))
    calls = [pool.submit(send_one, celery, "note", [], {}, way) for way in ways]
    wait(calls, seconds)
    pool.shutdown(wait=False)
    return [call.result() if call.done() else None for call in calls]


def _with_and_without_connections(stage: Stage) -> tuple[Client, Client]:
    """Return a client that has a connection for each way to send, and one without any. Both run."""
    without = stage.another_client()
    without.call(connect, 0)
    stage.client.call(connect, len(_WAYS))
    return stage.client, without


def _fails_in_time(stage: Stage, *clients: Client) -> None:
    """Send a task in each way from each client, which has to fail, for the broker cannot have it."""
    for client in clients:
        found = client.call(send_each_way, list(_WAYS.values()), PATIENCE, within=2 * PATIENCE)
        answers = {way: Sent(*answer) for way, answer in zip(_WAYS, found, strict=True) if answer}
        for way, answer in answers.items():
            stage.require(answer.error, f"{way} returned though the broker could not have the message")
        for way in _WAYS:
            if way not in answers:
                client.kill()
                raise TooLate(f"{way} did not return within {PATIENCE:g} s")
        _in_time(stage, list(answers.values()))


def _in_time(stage: Stage, answers: list[Sent]) -> None:
    longest = max(answer.seconds for answer in answers)
    longest = max(longest, stage.facts.get("longest call, in seconds", 0.0))
    stage.in_time("longest call, in seconds", longest, BOUND)


def _sends_and_runs(stage: Stage) -> None:
    """Send one more task with the same client, and let everything run whose `delay()` returned."""
    stage.sends_again(30)
    stage.workers.start()
    stage.wait_for(stage.ledger.ids("sent"), _DRAINED, what="whose delay() returned have not run")
