"""CTL-2: whoever watches, Flower above all, sees every worker and what becomes of every task."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from typing import Any

from celery import Celery

from broker_profiles.comparison.scenario import PromiseBroken, TooLate, case
from broker_profiles.comparison.scenarios.ctl_1_remote_control import answer_of
from broker_profiles.comparison.stage import Stage

GUARANTEE = "CTL-2"

#: How long an event may take, in seconds: Flower asks workers for them every 5 s.
BOUND = 15.0

#: After an outage the workers have 15 s to come back, and so has Flower.
_BOUND_AFTER_OUTAGE = 30.0

#: What a watching client has seen.
_seen: list[tuple[str, str]] = []


def watch(app: Celery) -> None:
    """Take in events from now on, in a thread, as a monitor does."""

    def note(event: dict[str, Any]) -> None:
        _seen.append((event["type"], event.get("uuid") or event["hostname"]))

    def capture() -> None:
        with app.connection_for_read() as connection:
            app.events.Receiver(connection, handlers={"*": note}).capture()

    threading.Thread(target=capture, daemon=True).start()


def seen(_app: Celery) -> list[tuple[str, str]]:
    """Return `(type, id of the task or name of the worker)` of every event so far."""
    return _seen


@case("a receiver of events sees all that happens to tasks and workers", quick=True)
def received(stage: Stage) -> None:
    """Start and stop a worker; let tasks succeed, fail, be tried again and be revoked."""
    stage.set(worker_send_task_events=True, task_send_sent_event=True)
    first = stage.workers.start(concurrency=1)
    watcher = stage.another_client()
    watcher.call(watch)

    def events() -> Counter[tuple[str, str]]:
        return Counter((kind, key) for kind, key in watcher.call(seen))

    def expect(what: str, *wanted: tuple[str, str]) -> None:
        stage.wait_for_value(lambda: set(wanted) <= set(events()), BOUND, f"{what}: not every event is seen")

    expect("a worker that was there before", ("worker-heartbeat", first.name))
    second = stage.workers.start(concurrency=1)
    expect("a worker that starts", ("worker-online", second.name), ("worker-heartbeat", second.name))
    second.terminate()
    second.wait(30)
    expect("a worker that ends", ("worker-offline", second.name))

    good, (bad,) = stage.client.sent("note", 5), stage.client.sent("fail")
    (again,) = stage.client.sent("again", 1, 1.0)
    (running,) = stage.client.sent("note", 1, 4.0)
    stage.wait_for([running], BOUND, kind="start")
    (revoked,) = stage.client.sent("note")
    answer_of(stage, first, "revoke", task_id=revoked)
    stage.ledger.withdrawn([revoked], "revoked")
    if running in stage.ledger.ids("finish"):
        raise TooLate("`revoke` was answered when what it was to forbid may have run")
    steps = ("task-sent", "task-received", "task-started")
    for id_ in (*good, running):
        expect("a task that succeeds", *((step, id_) for step in (*steps, "task-succeeded")))
    expect("a task that fails", *((step, bad) for step in (*steps, "task-failed")))
    expect("a task tried again", *((step, again) for step in (*steps, "task-retried", "task-succeeded")))
    expect("a revoked task", ("task-sent", revoked), ("task-revoked", revoked))
    twice = [key for key in (*good, running) if events()["task-succeeded", key] != 1]
    stage.require(not twice, f"the success of {len(twice)} tasks was seen more than once")


@case("Flower knows every worker by name and every task by its id")
def flower(stage: Stage) -> None:
    """Start two workers and Flower; send tasks; ask Flower over HTTP. Then kill and restart the broker."""
    names = {stage.workers.start().name, stage.workers.start().name}
    watching = _Flower(stage)
    stage.wait_for_value(lambda: watching.workers() >= names, 2 * BOUND, "Flower does not know every worker")
    _sees_a_task(stage, watching, 2 * BOUND)
    sent = stage.client.sent("note", 20)
    stage.wait_for(sent, BOUND)
    stage.wait_for_value(lambda: watching.succeeded() >= set(sent), BOUND, "Flower does not see every task")
    stage.require_clean()


@case("Flower goes on after the broker was killed and restarted")
def flower_after_an_outage(stage: Stage) -> None:
    """Neither the worker nor Flower is restarted: both have to find the broker again."""
    _ = stage.server.link  # a file lives in the processes that use it, and ends with them
    worker = stage.workers.start()
    watching = _Flower(stage)
    _sees_a_task(stage, watching, 2 * BOUND)
    stage.server.kill()
    stage.server.start()
    began = time.monotonic()
    _sees_a_task(stage, watching, 2 * _BOUND_AFTER_OUTAGE)
    stage.require(worker.alive, "the worker ended when the broker was restarted")
    stage.in_time("seconds until Flower saw a task again", time.monotonic() - began, _BOUND_AFTER_OUTAGE)


def _sees_a_task(stage: Stage, watching: _Flower, within: float) -> None:
    """Send a task a second until Flower has seen one from its beginning to its end."""
    sent: set[str] = set()

    def one_more() -> bool:
        sent.update(answer.id for answer in stage.client.send("note", within=within))
        stage.pause(1.0)
        return bool(watching.succeeded() & sent)

    stage.wait_for_value(one_more, within, "Flower sees no task")


class _Flower:
    """Flower on a free port, and what it says over HTTP."""

    def __init__(self, stage: Stage) -> None:
        if importlib.util.find_spec("flower") is None:
            stage.not_applicable("Flower is not installed: pip install 'broker-profiles[flower]'")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._url = f"http://127.0.0.1:{port}/api"
        options = (f"--port={port}", "--address=127.0.0.1")
        self._process = stage.command("flower", *options, environ={"FLOWER_UNAUTHENTICATED_API": "true"})

    def workers(self) -> set[str]:
        """Return the workers that it has asked, by remote control, what they are, and that have answered."""
        return {name for name, about in self._get("workers?refresh=1").items() if about.get("registered")}

    def succeeded(self) -> set[str]:
        """Return the ids of the tasks that it has seen succeed."""
        return {id_ for id_, task in self._get("tasks").items() if task["state"] == "SUCCESS"}

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self._url}/{path}", timeout=10) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            if not self._process.alive:
                raise PromiseBroken("Flower ended by itself") from None
            return {}  # it does not listen yet
