"""`results show`: what an AsyncResult says of a task, beside what the store keeps under its key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from broker_profiles.cli import output
from broker_profiles.cli.results.store import result_store, seconds
from broker_profiles.results.kept import Kept


@click.command()
@click.argument("id_", metavar="ID")
@output.json_option
def show(id_: str, json: bool) -> None:
    """Show what an AsyncResult says of the task ID, beside what the store really keeps.

    An AsyncResult says PENDING of a task that waits, of one whose result has expired, and of one that there
    never was: the store has nothing of either.
    """
    with result_store() as (_, backend):
        meta = backend.get_task_meta(id_, cache=False)
        key, kept = backend.key_of(id_), backend.kept(id_)
    said = {name: _plain(meta.get(name)) for name in ("status", "result", "traceback", "date_done")}
    if json:
        stored = asdict(kept) if kept else None
        output.print_json({"id": id_, "key": key, "async_result": said, "stored": stored})
    else:
        _print(id_, key, said, kept)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, and an exception as Python shows it."""
    return value if value is None or isinstance(value, bool | int | float | list | dict) else _text(value)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, BaseException) else str(value)


def _print(id_: str, key: str, said: dict[str, Any], kept: Kept | None) -> None:
    output.print_line(f"AsyncResult({id_!r})")
    _print_rows(
        ("state", said["status"]),
        ("result", said["result"]),
        ("done", said["date_done"]),
        ("traceback", said["traceback"]),
    )
    output.print_line(f"stored under {key}")
    if kept is None:
        output.print_line("  nothing: it waits or runs, has expired, or there never was such a task")
        return
    _print_rows(
        ("state", kept.state),
        ("value", kept.value),
        ("task", kept.task or "not stored"),
        ("runtime", seconds(kept.runtime) or "not stored"),
        ("age", seconds(kept.age) or "not stored"),
        ("expires in", seconds(kept.ttl) or "never"),
        ("traceback", kept.traceback),
    )


def _print_rows(*rows: tuple[str, Any]) -> None:
    for name, value in rows:
        if value is not None or name in ("state", "result"):
            lines = str(value).rstrip().splitlines() or [""]
            output.print_line(f"  {name:10} {lines[0]}")
            for line in lines[1:]:
                output.print_line(f"  {'':10} {line}")
