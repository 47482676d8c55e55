"""`results wait`: until tasks have finished, and what has become of them."""

from __future__ import annotations

import click
from celery import states

from broker_profiles.cli import output
from broker_profiles.cli.results.store import result_store
from broker_profiles.errors import BrokerProfilesError
from broker_profiles.results.kept import as_they_come


class NotAllDone(BrokerProfilesError):
    """{left} of {asked} tasks have not succeeded: {found}."""


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    show_envvar=True,
    help="Seconds to wait for all of them.",
)
@output.json_option
def wait(ids: tuple[str, ...], timeout: float, json: bool) -> None:
    """Wait until all the tasks ID... have finished, and say how each has ended.

    Exit status 0: all have succeeded; 1: one has not, or was not there in time.
    """
    ended: dict[str, str] = {}
    with result_store() as (_, backend):
        for id_, state in as_they_come(backend, ids, timeout):
            ended[id_] = state
            if not json:
                output.print_line(f"{state:8} {id_}")
    if json:
        output.print_json({"states": ended})
    others = [state for state in ended.values() if state != states.SUCCESS]
    if others:
        found = ", ".join(f"{others.count(state)} {state}" for state in sorted(set(others)))
        raise NotAllDone(left=len(others), asked=len(ended), found=found)
