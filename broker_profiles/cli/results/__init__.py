"""`results`: what the result store of a profile really keeps."""

from __future__ import annotations

import click
from click_didyoumean import DYMGroup  # type: ignore[import-untyped]

from broker_profiles.cli.results.listing import list_results
from broker_profiles.cli.results.purge import purge
from broker_profiles.cli.results.show import show
from broker_profiles.cli.results.wait import wait


@click.group("results", cls=DYMGroup)
def results() -> None:
    """List, show, wait for and remove the results that BROKER_PROFILE's store keeps."""


for _command in (list_results, show, wait, purge):
    results.add_command(_command)
