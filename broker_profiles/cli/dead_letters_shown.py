"""Dead letters on a terminal, in lines for other programs, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import click

from broker_profiles.cli import output
from broker_profiles.runtime.dead_letter import Contents, DeadLetter

#: What is listed of each; a terminal gets them as columns.
_FIELDS = ("id", "died_at", "queue", "reason", "deliveries", "size", "task", "task_id", "detail")


def print_list(profile: str, letters: Iterable[DeadLetter], json: bool) -> None:
    """Print dead letters: a table on a terminal, elsewhere a line each with tabs between the fields."""
    rows = (_listed(letter) for letter in letters)
    if json:
        output.print_json({"profile": profile, "dead_letters": list(rows)})
    elif sys.stdout.isatty():
        _print_table(list(rows))
    else:
        for row in rows:
            # Not by rich, which makes spaces of tabs.
            click.echo("\t".join(output.printable(row[name]) for name in _FIELDS))


def print_contents(profile: str, found: Sequence[Contents], json: bool) -> None:
    """Print all there is to say of some dead letters."""
    if json:
        data = [
            {
                **_listed(each.letter),
                "traceback": each.letter.traceback,
                "args": each.args,
                "kwargs": each.kwargs,
                "headers": each.headers,
                "body": each.body,
            }
            for each in found
        ]
        output.print_json({"profile": profile, "dead_letters": data})
        return
    for number, each in enumerate(found):
        if number:
            output.print_line("")
        _print_one(each)


def _listed(letter: DeadLetter) -> dict[str, Any]:
    fields = {**asdict(letter), "died_at": letter.died_at.isoformat(timespec="milliseconds")}
    return {name: fields[name] for name in _FIELDS}


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    table = output.table(
        "Id", "Set aside", "Queue", "Reason", "Deliveries", "Bytes", "Task", "Task id", "Detail"
    )
    for row in rows:
        table.add_row(*output.cells(*(output.printable(row[name]) for name in _FIELDS)))
    output.console().print(table)


def _print_one(each: Contents) -> None:
    fields = {**_listed(each.letter), "args": each.args, "kwargs": each.kwargs, "body": each.body}
    for name, value in fields.items():
        if value != "":
            output.print_line(f"{name:10} {output.printable(value)}")
    for name, value in each.headers.items():
        output.print_line(f"header     {output.printable(name)}: {output.printable(value)}")
    for line in each.letter.traceback.splitlines():
        output.print_line(f"traceback  {output.printable(line)}")
