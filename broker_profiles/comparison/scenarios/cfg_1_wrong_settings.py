"""CFG-1: a setting that is unknown or impossible stops a worker at its start, with one line that helps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from broker_profiles.comparison.scenario import case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.workers import Worker
from broker_profiles.profile import Mode

GUARANTEE = "CFG-1"

#: How long a worker may take to stop, in seconds: it has to start Python first.
BOUND = 10.0

#: What commands exit with where the user has written something wrong.
_WRONG_USAGE = 2

_MARK = "nobody-may-see-this"

#: A bound on a queue's length that no case comes near.
_MANY = 1_000_000


@case("a setting of Celery that is misspelt", quick=True)
def celery_setting(stage: Stage) -> None:
    """Leave one letter out of a name that decides whether tasks survive their worker."""
    _stops(stage, "task_acks_late", settings={"task_ack_late": True})


@case("a variable of the profile that is misspelt", quick=True)
def variable(stage: Stage) -> None:
    """Leave the last letter out of a variable."""
    _skip_baselines(stage)
    _stops(stage, "BROKER_PROFILE_LEASE_SECONDS", environ={"BROKER_PROFILE_LEASE_SECOND": "20"})


@case("a value that is out of bounds")
def out_of_bounds(stage: Stage) -> None:
    """Ask for a lease that has ended before it begins."""
    _skip_baselines(stage)
    _stops(stage, "BROKER_PROFILE_LEASE_SECONDS", environ={"BROKER_PROFILE_LEASE_SECONDS": "-1"})


@case("the name of the profile is misspelt")
def profile_name(stage: Stage) -> None:
    """Leave the last letter out of its name."""
    _skip_baselines(stage)
    name = stage.profile.name
    _stops(stage, f"'{name}'", environ={"BROKER_PROFILE": name[:-1]})


@case("the address of a server is malformed")
def malformed_address(stage: Stage) -> None:
    """Give words for a port; the password in the address is shown to nobody."""
    _skip_baselines(stage)
    names = [name for name in stage.environ if name.endswith("_URL")]
    if not names:
        stage.not_applicable("no server, no address")
    parts = urlsplit(stage.environ[names[0]])
    wrong = urlunsplit(parts._replace(netloc=f"user:{_MARK}@{parts.hostname}:port"))
    _stops(stage, names[0], environ={names[0]: wrong})


@case("the variable of Celery for the broker names another one")
def another_address(stage: Stage) -> None:
    """Set both: Celery's own variable would win without a word."""
    _skip_baselines(stage)
    _stops(stage, "CELERY_BROKER_URL", environ={"CELERY_BROKER_URL": f"redis://:{_MARK}@elsewhere:6379/9"})


def declare_otherwise(app: Any) -> str:
    """Declare the queue of the application with an argument that it does not give it; return its name."""
    queue = app.amqp.queues[app.conf.task_default_queue]
    with app.connection_for_write() as connection:
        other = queue.bind(connection.default_channel)
        other.queue_arguments = {**(queue.queue_arguments or {}), "x-max-length": _MANY}
        other.declare()
    return str(queue.name)


@case("the queue exists already, with other arguments")
def another_queue(stage: Stage) -> None:
    """Start a worker then: it works, where arguments mean nothing to the broker, or says what is wrong."""
    queue = stage.client.call(declare_otherwise, within=20)
    worker = stage.workers.start(ready=False)
    _starts_or_ends(stage, worker)
    if worker.alive:
        stage.wait_for(stage.client.sent("note", 3), 20)
    else:
        said = worker.output()
        stage.require("Traceback" not in said, "the worker ends with a traceback")
        lines = [line for line in said.splitlines() if repr(queue) in line]
        stage.require(len(lines) == 1, f"{len(lines)} lines of its log name the queue, and not one")


def _skip_baselines(stage: Stage) -> None:
    if stage.profile.mode is Mode.STOCK:
        stage.not_applicable("a baseline has no settings but Celery's, and its address is set for it")


def _stops(
    stage: Stage,
    named: str,
    *,
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Start a worker with something wrong: it stops in time, with one line that names what is meant."""
    began = time.monotonic()
    worker = stage.workers.start(environ=environ, settings=settings, ready=False)
    _starts_or_ends(stage, worker)
    stage.require(not worker.alive, "the worker starts, and says nothing")
    stage.in_time("seconds until the worker stopped", time.monotonic() - began, BOUND)
    status = worker.wait(1)
    stage.require(status == _WRONG_USAGE, f"the worker exits with {status}, and not with {_WRONG_USAGE}")
    _says(stage, worker, named)


def _starts_or_ends(stage: Stage, worker: Worker) -> None:
    stage.wait_for_value(
        lambda: not worker.alive or worker.name in stage.ledger.ids("ready"),
        60,
        "the worker neither starts nor ends",
    )


def _says(stage: Stage, worker: Worker, named: str) -> None:
    """Require one line that names what is meant, and no password."""
    said = worker.output().strip()
    stage.require(len(said.splitlines()) == 1, f"it says {len(said.splitlines())} lines, and not one")
    stage.require(named in said, f"what it says does not name {named}: {said[:200]}")
    stage.require(_MARK not in said, "it shows the password")
