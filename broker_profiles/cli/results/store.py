"""The result store that these commands are about, and what they print alike."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import click

from broker_profiles.cli.application import Subject, subject
from broker_profiles.cli.probes import Unusable, meaning
from broker_profiles.errors import BrokerProfilesError, ConfigurationError, redact
from broker_profiles.results.kept import Shown

#: Characters of a stored value that fit into a table.
_SHORT = 60


class NothingKept(ConfigurationError):
    """The profile {profile!r} keeps no results to look at: {reason}. Choose another store, such as +redis."""


@contextlib.contextmanager
def result_store() -> Iterator[tuple[Subject, Any]]:
    """Give the profile that a command is about, and its result backend, which is a `Shown`.

    Raises `NothingKept` where there is nothing to look at, and `Unusable` where the store cannot be reached.
    """
    about = subject(None)
    if reason := about.profile.guarantees.reason("RES-1"):
        raise NothingKept(profile=about.profile.name, reason=reason)
    app = about.application()
    # Drivers log what they are about to raise; without a handler that would be more lines on stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        backend = app.backend
        if not isinstance(backend, Shown):
            reason = f"the application has a backend of its own, {type(backend).__name__}"
            raise NothingKept(profile=about.profile.name, reason=reason)
        backend.always_retry = False  # type: ignore[attr-defined]  # what is wrong is said at once
        yield about, backend
    except (BrokerProfilesError, click.Abort):
        raise
    except Exception as error:
        address = redact(app.conf.result_backend)
        raise Unusable(
            part="result store", address=address, source=about.profile.results.name, problem=meaning(error)
        ) from error
    finally:
        if app is not about.app:
            if hasattr(app.backend, "close"):
                app.backend.close()
            app.close()


def seconds(value: float | None) -> str:
    """Return a length of time for people, an empty text for none."""
    return "" if value is None else f"{value:,.1f} s"


def short(value: str) -> str:
    """Return a stored value on one line that fits into a table."""
    line = " ".join(value.split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}..."
