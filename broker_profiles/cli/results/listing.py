"""`results list`: the results that the store keeps, a page at a time."""

from __future__ import annotations

from dataclasses import asdict

import click

from broker_profiles.cli import output
from broker_profiles.cli.results.store import result_store, seconds, short
from broker_profiles.errors import ConfigurationError
from broker_profiles.results.kept import Page, Wanted


class NoTaskNames(ConfigurationError):
    """Results are stored without the names of their tasks: set result_extended = True in the application."""


@click.command("list")
@click.option("--state", metavar="STATE", show_envvar=True, help="Only those in this state, such as FAILURE.")
@click.option(
    "--task", metavar="NAME", show_envvar=True, help="Only those of this task; needs result_extended."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    show_envvar=True,
    help="Show so many at most.",
)
@click.option("--after", default="", show_envvar=True, help="Go on where the page before has ended.")
@output.json_option
def list_results(state: str | None, task: str | None, limit: int, after: str, json: bool) -> None:
    """List the results that the store keeps.

    They are in the order of the store, which Redis has none of. One command looks at 10,000 results at most;
    if there are more, it says how to go on. What changes between two pages may be shown twice or not at all.
    """
    wanted = Wanted(limit, state.upper() if state else None, task, after)
    with result_store() as (_, backend):
        if task and not backend.app.conf.result_extended:
            raise NoTaskNames()
        page = backend.page(wanted)
    if json:
        output.print_json({"results": [asdict(kept) for kept in page.results], "next": page.next or None})
    else:
        _print(page)


def _print(page: Page) -> None:
    table = output.table("Id", "State", "Task", "Age", "Expires in", "Value")
    table.columns[0].no_wrap = True  # it may be copied from
    for kept in page.results:
        age, left = seconds(kept.age), seconds(kept.ttl)
        table.add_row(*output.cells(kept.id, kept.state, kept.task or "", age, left, short(kept.value)))
    if page.results:
        output.console().print(table)
    else:
        output.print_line("no results")
    if page.next:
        output.print_line(f"There may be more: --after {page.next}")
