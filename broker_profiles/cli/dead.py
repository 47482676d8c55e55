"""`dead`: the dead letters of a profile, to be looked at, replayed or discarded."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import click
from celery import Celery
from click_didyoumean import DYMGroup  # type: ignore[import-untyped]

from broker_profiles.cli import dead_letters_shown, output
from broker_profiles.cli.application import subject
from broker_profiles.cli.output import F
from broker_profiles.cli.probes import explaining
from broker_profiles.errors import ConfigurationError
from broker_profiles.runtime.dead_letter import REASONS, DeadLetter
from broker_profiles.runtime.dead_letters import (
    discard_dead_letters,
    each_dead_letter,
    read_dead_letters,
    replay_dead_letters,
)

#: How many `list` shows where nobody says how many.
_LISTED = 100


class WrongChoice(ConfigurationError):
    """It is not clear which dead letters are meant: {problem}."""


class Filters(NamedTuple):
    """Which dead letters a command is about, where it names no ids."""

    queue: str | None
    reason: str | None
    task: str | None
    limit: int | None
    all: bool


class _Commands(DYMGroup):  # type: ignore[misc]
    """A group that answers an unknown command with the nearest."""


@click.group("dead", cls=_Commands)
def dead() -> None:
    """List, show, replay and discard dead letters: messages set aside, each with its reason.

    The profile is that of BROKER_PROFILE, or of the application of `celery -A`. On RabbitMQ the queues looked
    in are those that the application configures, and the one of --queue.
    """


def _filters(command: F) -> F:
    """Give a command the options that choose dead letters."""
    for option in reversed(
        (
            click.option("--queue", show_envvar=True, help="Those of one queue."),
            click.option(
                "--reason", type=click.Choice(REASONS), show_envvar=True, help="Those set aside for it."
            ),
            click.option(
                "--task", show_envvar=True, help="Those of tasks of this name; * and ? stand for others."
            ),
            click.option("--limit", type=click.IntRange(1), show_envvar=True, help="So many, the oldest."),
            click.option(
                "--all", "all", is_flag=True, show_envvar=True, help="All that the other options leave."
            ),
        )
    ):
        command = option(command)
    return command


def _ids(command: F) -> F:
    return click.argument("ids", nargs=-1, metavar="[ID]...")(command)


@click.command("list")
@_filters
@output.json_option
def list_(json: bool, **chosen: object) -> None:
    """List dead letters, the oldest first: 100 of them, unless --limit or --all says otherwise."""
    filters = Filters(**chosen)  # type: ignore[arg-type]
    if filters.limit is None and not filters.all:
        filters = filters._replace(limit=_LISTED)
    with _opened() as (profile, app), contextlib.closing(_letters(app, filters)) as letters:
        dead_letters_shown.print_list(profile, letters, json)


@click.command()
@_ids
@_filters
@output.json_option
def show(ids: Sequence[str], json: bool, **chosen: object) -> None:
    """Show dead letters with their headers, their arguments and the traceback of the last failure.

    Name their IDs, or --all for all that the other options leave. Arguments are shown as Celery shows them;
    what looks like a password is not.
    """
    filters = Filters(**chosen)  # type: ignore[arg-type]
    with _opened() as (profile, app):
        found = read_dead_letters(app, _chosen(app, ids, filters), filters.queue)
        dead_letters_shown.print_contents(profile, found, json)


@click.command()
@_ids
@_filters
@output.json_option
def replay(ids: Sequence[str], json: bool, **chosen: object) -> None:
    """Put dead letters back into their queues, as new messages whose deliveries are counted anew.

    Name their IDs, or --all for all that the other options leave. None is lost if this dies on the way.
    """
    filters = Filters(**chosen)  # type: ignore[arg-type]
    with _opened() as (profile, app):
        _act(profile, app, _existing(app, ids, filters), filters, "replayed", replay_dead_letters, json)


@click.command()
@_ids
@_filters
@click.option("--yes", is_flag=True, show_envvar=True, help="Do not ask.")
@output.json_option
def discard(ids: Sequence[str], yes: bool, json: bool, **chosen: object) -> None:
    """Remove dead letters for good, once you have said yes.

    Name their IDs, or --all for all that the other options leave.
    """
    filters = Filters(**chosen)  # type: ignore[arg-type]
    with _opened() as (profile, app):
        wanted = _existing(app, ids, filters)
        if wanted and not yes:
            click.confirm(f"Discard {output.counted(len(wanted), 'dead letter')}?", abort=True, err=True)
        _act(profile, app, wanted, filters, "discarded", discard_dead_letters, json)


@contextlib.contextmanager
def _opened() -> Iterator[tuple[str, Celery]]:
    """Give the name of the profile and an application on it; what fails is explained."""
    about = subject(None)
    app = about.application()
    try:
        with explaining(app, about.profile, about.environment):
            yield about.profile.name, app
    finally:
        if app is not about.app:
            app.close()


def _letters(app: Celery, filters: Filters) -> Generator[DeadLetter, None, None]:
    found = each_dead_letter(app, filters.queue, reason=filters.reason, task=filters.task)
    with contextlib.closing(found) as letters:
        yield from itertools.islice(letters, filters.limit)


def _chosen(app: Celery, ids: Sequence[str], filters: Filters) -> list[str]:
    """Return the ids that are named, or those that the filters leave. Raises `WrongChoice`."""
    if ids and (filters.reason or filters.task or filters.limit or filters.all):
        raise WrongChoice(problem="name ids, or say --all and what they have in common, not both")
    if not ids and not filters.all:
        raise WrongChoice(problem="name ids, or say --all for all that the other options leave")
    return list(ids) if ids else [letter.id for letter in _letters(app, filters)]


def _existing(app: Celery, ids: Sequence[str], filters: Filters) -> list[str]:
    """Return what `_chosen` does, each once. Raises `NoSuchDeadLetter` of what is not there."""
    chosen = _chosen(app, ids, filters)
    if not ids:
        return chosen
    return [each.letter.id for each in read_dead_letters(app, chosen, filters.queue)]


def _act(
    profile: str,
    app: Celery,
    ids: list[str],
    filters: Filters,
    done: str,
    act: Callable[[Celery, list[str], str | None], int],
    json: bool,
) -> None:
    count = act(app, ids, filters.queue) if ids else 0
    if json:
        output.print_json({"profile": profile, done: count})
    else:
        output.print_line(f"{done} {output.counted(count, 'dead letter')}")


for _command in (list_, show, replay, discard):
    dead.add_command(_command)
