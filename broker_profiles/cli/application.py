"""Which profile a command is about: the one named, the application's of `celery -A`, or the environment's."""

from __future__ import annotations

from typing import NamedTuple

import click
from celery import Celery

from broker_profiles.configuration import configure, load, refuse_other_addresses
from broker_profiles.errors import ConfigurationError
from broker_profiles.profile import Profile
from broker_profiles.registry import require_drivers
from broker_profiles.settings import Environment


class NoProfile(ConfigurationError):
    """The application {app!r} has no profile: call broker_profiles.configure(app), or name a profile."""


class Subject(NamedTuple):
    """A profile, the environment it reads, and the application of `celery -A` where there is one."""

    profile: Profile
    environment: Environment
    app: Celery | None

    def application(self) -> Celery:
        """Return the application, or a new one on this profile. Raises `ConfigurationError`."""
        require_drivers(self.profile)
        return self.app or configure(Celery("broker-profiles", set_as_current=False), self.profile)


def subject(name: str | None) -> Subject:
    """Return what a command is about. Raises `ConfigurationError`, also for addresses that disagree."""
    environment = Environment()
    app = None if name else _given_application()
    profile = load(name) if app is None else _profile_of(app)
    refuse_other_addresses(profile.settings(environment), environment)
    return Subject(profile, environment, app)


def _profile_of(app: Celery) -> Profile:
    profile = getattr(app, "broker_profile", None)
    if not isinstance(profile, Profile):
        raise NoProfile(app=app.main or "default")
    return profile


def _given_application() -> Celery | None:
    root = click.get_current_context().find_root()
    # Without -A, `celery` puts an empty application there that nobody meant.
    return root.obj.app if root.params.get("app") else None
