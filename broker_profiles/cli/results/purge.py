"""`results purge`: removes what has expired, or everything."""

from __future__ import annotations

import click

from broker_profiles.cli import output
from broker_profiles.cli.results.store import result_store
from broker_profiles.errors import redact


@click.command()
@click.option("--all", "everything", is_flag=True, show_envvar=True, help="Remove what is still kept too.")
@click.option("--yes", is_flag=True, show_envvar=True, help="Do not ask before removing all.")
@output.json_option
def purge(everything: bool, yes: bool, json: bool) -> None:
    """Remove the results that have expired, now and not some time soon; with --all every result and group.

    Redis removes what has expired itself, so that there is nothing left to do.
    """
    with result_store() as (about, backend):
        where = redact(backend.app.conf.result_backend)
        if everything and not yes:
            question = f"Remove every result at {where}, of all applications that store theirs there?"
            click.confirm(question, abort=True, err=True)
        removed = backend.purge(everything=everything)
    if json:
        output.print_json({"profile": about.profile.name, "removed": removed})
    else:
        output.print_line(f"{removed:,} removed")
