"""The demonstration from beginning to end: servers, workers, the map-reduce, the check, one result."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import group
from celery.backends.base import DisabledBackend
from celery.exceptions import DuplicateTaskNameWarning

from broker_profiles.demo.counting import Totals, count_plainly
from broker_profiles.demo.environment import import_path, repository, require_workers, servers_for
from broker_profiles.demo.stored import Stored, stored_result
from broker_profiles.demo.workers import Workers, interruptible
from broker_profiles.errors import BrokerProfilesError, ConfigurationError, UnsupportedCombination
from broker_profiles.options import OPTIONS
from broker_profiles.profile import Profile
from broker_profiles.settings import Environment

#: A queue of its own: the demo takes nobody's tasks from a broker in use, and nobody takes its. With the
#: mode behind it, for RabbitMQ refuses to have one queue in two kinds. It is also made the default queue,
#: for there Celery puts what it sends by itself, to end a chord.
_QUEUE = "broker-profiles-demo-{mode}"

#: Seconds in which the workers have to be done.
_TIMEOUT = 120.0

Say = Callable[[str], object]


class NoFiles(ConfigurationError):
    """There are no Python files below {folder!r}."""


class WrongTotals(BrokerProfilesError):
    """The workers counted {theirs}, and a plain loop over the same files {ours}."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the workers found, how long it took, and where the result lies."""

    totals: Totals
    #: The largest files, as the tasks describe them.
    largest: list[dict[str, Any]]
    tasks: int
    seconds: float
    loop_seconds: float
    stored: Stored

    @property
    def tasks_per_second(self) -> float:
        """Tasks finished a second, from the first one sent to the last result."""
        return self.tasks / self.seconds


def standard_library() -> str:
    """Return the folder of Python's standard library."""
    return sysconfig.get_path("stdlib")


def run(
    profile: Profile, environment: Environment, *, workers: int, folder: str, limit: int | None, say: Say
) -> Outcome:
    """Count the Python files below a folder with workers on this profile, and check what they say.

    Raises `BrokerProfilesError`; whatever was started has ended when this returns or raises.
    """
    root = repository()
    require_workers(profile)
    with (
        interruptible(),
        tempfile.TemporaryDirectory(prefix="broker-profiles-demo-") as scratch,
        servers_for(profile, environment, say) as variables,
        _environment({**_place_embedded(scratch), **variables, "PYTHONPATH": import_path(root)}),
        _tasks(root) as (text, progress),
    ):
        if isinstance(text.app.backend, DisabledBackend):
            problem = "the demo shows results, and this profile stores none"
            raise UnsupportedCombination(profile=profile.name, problem=problem)
        paths = text.python_files(folder)[:limit]
        if not paths:
            raise NoFiles(folder=folder)
        queue = _QUEUE.format(mode=profile.mode)
        text.app.conf.task_default_queue = queue
        options = ["--concurrency=1", f"--queues={queue}", "--", f"task.default_queue={queue}"]
        with Workers(workers, options, os.environ, Path(scratch)) as running:
            say(f"Starting {workers} workers on {profile.name}")
            running.wait_until_ready(text.app)
            say(f"Counting {len(paths)} files")
            outcome = _count(profile, text, progress, paths, queue)
            # Celery's results are cycles, and some want their connection once more when they go: let
            # them go while there is one, not at the end of the interpreter.
            gc.collect()
            return outcome


def _count(profile: Profile, text: Any, progress: Any, paths: list[str], queue: str) -> Outcome:
    """Send the work, wait for it, and compare it with a plain loop. Raises `WrongTotals`."""
    started = time.perf_counter()
    if profile.guarantees.chords:
        sent = text.map_reduce(paths).apply_async(queue=queue)
        tasks = len(sent.parent.results) + 1
        counts = progress.follow(sent, "tasks", timeout=_TIMEOUT)
    else:
        # No chord without a store that workers can read: this process collects, a worker still merges.
        mapped = group(text.batches(paths)).apply_async(queue=queue)
        tasks = len(mapped.results) + 1
        parts = progress.follow(mapped, "tasks", timeout=_TIMEOUT)
        sent = text.merge_counts.apply_async((parts,), queue=queue)
        counts = sent.get(timeout=_TIMEOUT)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    ours = count_plainly(paths)
    loop_seconds = time.perf_counter() - started
    theirs = Totals(counts["files"], counts["lines"], counts["words"], counts["definitions"])
    if theirs != ours:
        raise WrongTotals(theirs=theirs, ours=ours)
    stored = stored_result(text.app, sent.id)
    return Outcome(theirs, counts["largest"], tasks, seconds, loop_seconds, stored)


@contextlib.contextmanager
def _tasks(root: Path) -> Iterator[tuple[Any, Any]]:
    """Import the task package as the environment is now, and yield its modules `text` and `progress`.

    What was imported before, by `celery -A` or of the same name from elsewhere, has another configuration.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] in ("tasks", "config"):
            del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            text = importlib.import_module("tasks.text")
            text.app.finalize()
        yield text, importlib.import_module("tasks.progress")
    finally:
        sys.path.remove(str(root))


def _place_embedded(scratch: str) -> dict[str, str]:
    """Return where the embedded profile's file goes: aside, unless the environment has a place for it."""
    variable = OPTIONS["embedded_path"].variable
    return {variable: os.environ.get(variable) or str(Path(scratch) / "demo.sqlite3")}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process and its children for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
