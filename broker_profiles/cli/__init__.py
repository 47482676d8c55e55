"""The command `broker-profiles`, also there as `celery -A app profile ...`.

One file a command; each parses and prints, and leaves the work to others. An error is one line on
standard error: exit status 2 for what the user wrote, 1 for what failed.
"""

from __future__ import annotations

from typing import Any

import click
from click_didyoumean import DYMGroup  # type: ignore[import-untyped]

from broker_profiles.cli.check import check
from broker_profiles.cli.compare import compare
from broker_profiles.cli.dead import dead
from broker_profiles.cli.demo import demo
from broker_profiles.cli.listing import list_profiles
from broker_profiles.cli.output import one_line
from broker_profiles.cli.results import results
from broker_profiles.cli.show import show
from broker_profiles.errors import BrokerProfilesError

PROGRAM = "broker-profiles"


class _Commands(DYMGroup):  # type: ignore[misc]
    """A group whose commands end in one line where they fail, whoever the parent is."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"Error: {one_line(error)}", err=True)
            ctx.exit(error.exit_status if isinstance(error, BrokerProfilesError) else 1)


# The name is what `celery` lists it under, and the prefix keeps the variables the same there.
@click.group("profile", cls=_Commands, context_settings={"auto_envvar_prefix": "BROKER_PROFILES"})
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
@click.option("--debug", is_flag=True, show_envvar=True, help="Show tracebacks instead of one line.")
def cli(debug: bool) -> None:
    """Brokers, result stores, and what Celery promises on each.

    The environment variable BROKER_PROFILE chooses one: BROKER[:MODE][+RESULTS].
    """


for _command in (list_profiles, show, check, dead, results, demo, compare):
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    cli.main(prog_name=PROGRAM)
