"""`demo`: real work on a profile, from starting the workers to a checked result."""

from __future__ import annotations

from pathlib import Path

import click

from broker_profiles.cli import output
from broker_profiles.cli.application import subject
from broker_profiles.demo.run import Outcome, run, standard_library
from broker_profiles.profile import Profile
from broker_profiles.registry import require_drivers

#: Characters of a stored value that are shown.
_SHOWN = 300


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    show_envvar=True,
    help="Worker processes.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    show_envvar=True,
    help="Count the Python files below this folder.  [default: the standard library]",
)
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="Count only so many files.")
@output.json_option
def demo(workers: int, folder: Path | None, limit: int | None, json: bool) -> None:
    """Count lines, words and definitions of many files with workers on BROKER_PROFILE's profile.

    Starts the workers, and a server where the profile needs one that nobody has named; ends them all.
    The totals are checked against a plain loop over the same files.
    """
    about = subject(None)
    require_drivers(about.profile)
    base = str((folder or Path(standard_library())).resolve())
    say = output.console(stderr=True).print
    outcome = run(about.profile, about.environment, workers=workers, folder=base, limit=limit, say=say)
    if json:
        output.print_json(_as_data(about.profile, workers, outcome))
    else:
        _print(base, outcome)


def _print(base: str, outcome: Outcome) -> None:
    table = output.table("Module", "Lines", "Words", "Definitions", title=f"The largest files of {base}")
    for column in table.columns[1:]:
        column.justify = "right"
    for file in outcome.largest:
        name = Path(file["path"]).relative_to(base)
        table.add_row(*output.cells(name, *(f"{file[what]:,}" for what in ("lines", "words", "definitions"))))
    totals = outcome.totals
    table.add_section()
    sums = [f"{number:,}" for number in (totals.lines, totals.words, totals.definitions)]
    table.add_row(*output.cells(f"all {totals.files:,} files", *sums, style="bold"))
    output.console().print(table)
    output.print_line(f"A plain loop over the same files finds the same, in {outcome.loop_seconds:.1f} s.")
    output.print_line(
        f"{outcome.tasks} tasks in {outcome.seconds:.1f} s: {outcome.tasks_per_second:.0f} tasks a second."
    )
    stored = outcome.stored
    output.print_line(f"Results lie in {stored.where}; the last one")
    output.print_line(f"  key    {stored.key}")
    value = stored.value if len(stored.value) <= _SHOWN else f"{stored.value[:_SHOWN]}..."
    output.print_line(f"  value  {value}")


def _as_data(profile: Profile, workers: int, outcome: Outcome) -> dict[str, object]:
    stored = outcome.stored
    return {
        "profile": profile.name,
        "workers": workers,
        **outcome.totals._asdict(),
        "largest": outcome.largest,
        "tasks": outcome.tasks,
        "seconds": round(outcome.seconds, 3),
        "tasks_per_second": round(outcome.tasks_per_second, 1),
        "loop_seconds": round(outcome.loop_seconds, 3),
        "result": {"where": stored.where, "key": stored.key, "value": stored.value},
    }
