"""What the commands share: options, tables, JSON, and text that is safe to print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker_profiles.errors import HIDDEN, SECRET_NAME, BrokerProfilesError, redact

F = TypeVar("F", bound=Callable[..., Any])

#: Columns where there is no terminal to ask; the 80 that are usual make tables of reasons unreadable.
_WIDTH = 120


def json_option(command: F) -> F:
    """Give a command the option `--json`."""
    option = click.option("--json", is_flag=True, show_envvar=True, help="Print JSON for programs.")
    return option(command)


def name_argument(command: F) -> F:
    """Give a command the argument NAME, a profile."""
    return click.argument("name", required=False)(command)


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error, as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, width=_WIDTH if wide else None, highlight=False)


def print_json(value: object) -> None:
    """Print a value as JSON; what that cannot hold, such as a date in a result, as a text."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_line(text: str) -> None:
    """Print a line as it is: brackets included, and not folded, for it may be copied from."""
    console().print(Text(text), soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """Return `1 thing` or `5 things`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: object) -> str:
    """Return a text from elsewhere as one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def table(*columns: str, title: str = "", **shares: int) -> Table:
    """Return an empty table; `shares` divide the width among the columns named in lower case."""
    made = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    made.expand = bool(shares)
    for column in columns:
        made.add_column(column, overflow="fold", ratio=shares.get(column.lower()))
    return made


def cells(*texts: object, style: str = "") -> tuple[Text, ...]:
    """Return cells for a table that show texts as they are: `[redis]` is an extra here, not a colour."""
    return tuple(Text(str(text), style=style) for text in texts)


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line and without passwords."""
    text = " ".join(redact(error).split())
    if isinstance(error, BrokerProfilesError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def harmless(value: Any, name: str = "") -> Any:
    """Return a setting as JSON can hold it, with what only its owner should know hidden."""
    if isinstance(value, Mapping):
        return {str(key): harmless(inner, str(key)) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, list | tuple | set | frozenset):
        return [harmless(inner) for inner in value]
    return redact(value)
