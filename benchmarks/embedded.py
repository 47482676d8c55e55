"""The embedded profile: tasks a second in and out, and what idle workers cost.

`make bench-embedded`. Medians of interleaved rounds, each on a fresh file; a round ends when the store is
empty, so every task that was counted has been acknowledged. Nothing here passes or fails.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psutil

from broker_profiles import load
from broker_profiles.transports.sqlite import SQLiteStore

ROOT = Path(__file__).parents[1]

#: Pool name -> the options of each of the worker commands that make up two worker processes.
POOLS = {"solo, 2 workers": [["--pool=solo"]] * 2, "prefork, 2 children": [["--concurrency=2"]]}

_ENQUEUE = """
import sys, time
from benchmarks.app import app, noop
noop.delay()
app.control.purge()
count = int(sys.argv[1])
began = time.perf_counter()
for _ in range(count):
    noop.delay()
print(count / (time.perf_counter() - began))
"""


def environment(folder: str) -> dict[str, str]:
    """Return the variables of one round."""
    path = str(Path(folder) / "embedded.sqlite3")
    return {**os.environ, "BROKER_PROFILE": "embedded", "BROKER_PROFILE_EMBEDDED_PATH": path}


def enqueue(environ: dict[str, str], count: int, producers: int) -> float:
    """Send tasks one by one from so many processes; return tasks a second of all together."""
    command = [sys.executable, "-c", _ENQUEUE, str(count // producers)]
    running = [
        subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(producers)
    ]
    return sum(float(process.communicate()[0]) for process in running)


@contextmanager
def workers(environ: dict[str, str], options: list[list[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run workers for a block."""
    base = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "worker", "--loglevel=error"]
    running = [
        subprocess.Popen(
            [*base, f"--hostname=bench{number}", *extra],
            env=environ,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number, extra in enumerate(options)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def waiting(store: SQLiteStore) -> int:
    """Return how many messages are not yet acknowledged."""
    sizes = store.sizes("celery")
    return sizes.ready + sizes.leased


def throughput(environ: dict[str, str], options: list[list[str]]) -> float:
    """Return tasks a second from the first acknowledgement to the last."""
    store = SQLiteStore.open(f"sqlite:///{environ['BROKER_PROFILE_EMBEDDED_PATH']}", {})
    total = waiting(store)
    with workers(environ, options) as running:
        while (left := waiting(store)) == total:
            if any(process.poll() is not None for process in running):
                raise click.ClickException("a worker ended instead of working")
            time.sleep(0.005)
        began = time.perf_counter()
        while waiting(store):
            time.sleep(0.01)
        rate = left / (time.perf_counter() - began)
    store.close()
    return rate


def idle(environ: dict[str, str], options: list[list[str]], seconds: float) -> float:
    """Return the share of one core that waiting workers use, all of their processes together."""
    with workers(environ, options) as running:
        time.sleep(5)
        trees = [psutil.Process(process.pid) for process in running]
        trees += [child for tree in trees for child in tree.children(recursive=True)]
        before = sum(sum(tree.cpu_times()[:2]) for tree in trees)
        time.sleep(seconds)
        return (sum(sum(tree.cpu_times()[:2]) for tree in trees) - before) / seconds


@click.command(context_settings={"auto_envvar_prefix": "BENCH"})
@click.option("--tasks", default=20_000, show_envvar=True, help="Tasks a round.")
@click.option("--rounds", default=3, show_envvar=True, help="Rounds; the median is shown.")
@click.option("--idle-seconds", default=10.0, show_envvar=True, help="How long idle workers are watched.")
@click.option("--json", "as_json", is_flag=True, show_envvar=True, help="Print JSON.")
def main(tasks: int, rounds: int, idle_seconds: float, as_json: bool) -> None:
    """Measure the embedded profile."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(rounds):
        for producers, (pool, options) in enumerate(POOLS.items(), start=1):
            with tempfile.TemporaryDirectory() as folder:
                environ = environment(folder)
                note(f"enqueued/s, {producers} producer(s)", enqueue(environ, tasks, producers))
                note(f"tasks/s, {pool}", throughput(environ, options))
    with tempfile.TemporaryDirectory() as folder:
        for pool, options in POOLS.items():
            note(f"idle, % of a core, {pool}", 100 * idle(environment(folder), options, idle_seconds))
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    if as_json:
        click.echo(json.dumps({"profile": load("embedded").name, "tasks": tasks, **medians}, indent=2))
        return
    for name, value in sorted(medians.items()):
        click.echo(f"{name:<40} {value:>12,.1f}")


if __name__ == "__main__":
    main()
