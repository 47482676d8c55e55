"""Giving a Celery application its profile.

Our settings go in as defaults, so that what the application sets itself wins, whichever comes first;
an application or environment that names another broker is an error, for then neither is surely right.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import click
from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from broker_profiles.errors import BrokerProfilesError, ConfigurationError, ConflictingSetting, debugging
from broker_profiles.options import PROFILE_VARIABLE
from broker_profiles.profile import Mode, Profile, Setting
from broker_profiles.registry import require_drivers, resolve
from broker_profiles.runtime import one_line, signing
from broker_profiles.settings import Environment
from broker_profiles.spelling import refuse_misspelt

App = TypeVar("App", bound=Celery)

#: What an application gets that has no task class of its own.
_TASK_CLASS = "broker_profiles.runtime.task:Task"

#: What sends tasks in an application that says nothing else.
_AMQP_CLASS = "broker_profiles.runtime.delays:AMQP"

_ADDRESSES = ("broker_url", "result_backend")

#: Variables through which Celery itself takes an address, and the setting each replaces.
_CELERY_VARIABLES = {
    "BROKER_URL": "broker_url",
    "CELERY_BROKER_URL": "broker_url",
    "CELERY_BROKER_READ_URL": "broker_url",
    "CELERY_BROKER_WRITE_URL": "broker_url",
    "CELERY_RESULT_BACKEND": "result_backend",
}


def load(name: str | None = None, environ: Mapping[str, str] | None = None) -> Profile:
    """Return the profile of this name, or the one `BROKER_PROFILE` names; no server is asked.

    Raises `ConfigurationError`.
    """
    return resolve(name or Environment(environ).profile_name)


def configure(
    app: App, profile: str | Profile | None = None, environ: Mapping[str, str] | None = None
) -> App:
    """Give an application the settings of a profile, `BROKER_PROFILE`'s where none is given.

    Raises `ConfigurationError`. Inside the `celery` command it prints that error as one line and exits
    instead, for Celery would show it inside a traceback.
    """
    try:
        environment = Environment(environ)
        chosen = profile if isinstance(profile, Profile) else resolve(profile or environment.profile_name)
        require_drivers(chosen)
        settings = chosen.settings(environment)
        refuse_other_addresses(settings, environment)
        if chosen.mode is not Mode.STOCK:
            signing.prepare(environment)
    except BrokerProfilesError as error:
        _exit_inside_a_command(error)
        raise
    app.add_defaults(lambda: _defaults(app, chosen, settings))
    # A baseline is Celery as it comes, its classes included.
    if chosen.mode is not Mode.STOCK:
        if app.task_cls == Celery.task_cls:
            app.task_cls = _TASK_CLASS
        if app.amqp_cls == Celery.amqp_cls:
            app.amqp_cls = _AMQP_CLASS
        one_line.install()
        app.loader.override_backends = {**chosen.results.backends, **app.loader.override_backends}
    app.broker_profile = chosen
    _name_transport(settings)
    return app


def celery_app(name: str, profile: str | Profile | None = None, **options: Any) -> Celery:
    """Return a new Celery application on a profile; `options` go to `celery.Celery`."""
    return configure(Celery(name, **options), profile)


def refuse_other_addresses(settings: list[Setting], environment: Environment) -> None:
    """Raise `ConflictingSetting` where a variable that Celery reads names another server."""
    ours = {setting.name: setting.value for setting in settings}
    for variable, name in _CELERY_VARIABLES.items():
        theirs = environment.get(variable)
        if theirs and _normal(theirs) != _normal(str(ours.get(name, ""))):
            raise ConflictingSetting(
                name=variable,
                value=theirs,
                source=f"{PROFILE_VARIABLE} ({name})",
                ours=str(ours.get(name, "nothing")),
            )


def _defaults(app: Celery, profile: Profile, settings: list[Setting]) -> dict[str, Any]:
    """Return our settings, after a look at what the application has set for itself."""
    try:
        if profile.mode is not Mode.STOCK:
            refuse_misspelt(app)
        _refuse_other_servers(app, profile, settings)
    except ConfigurationError as error:
        _exit_inside_a_command(error)
        raise
    # Celery puts defaults that are added before what a configuration module or Django says.
    return {
        setting.name: setting.value
        for setting in settings
        if setting.name in _ADDRESSES or not app.conf.value_set_for(setting.name)
    }


def _refuse_other_servers(app: Celery, profile: Profile, settings: list[Setting]) -> None:
    """Raise `ConflictingSetting` where the application names another server."""
    for setting in settings:
        if setting.name not in _ADDRESSES:
            continue
        own = app.conf.get(setting.name)
        if own and _normal(str(own)) != _normal(str(setting.value)):
            raise ConflictingSetting(
                name=f"{setting.name} in the configuration of the application",
                value=own,
                source=f"the profile {profile.name}",
                ours=setting.value,
            )


def _normal(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme.removeprefix("py") + separator + rest.rstrip("/")


def _name_transport(settings: list[Setting]) -> None:
    """Tell kombu the scheme of our transport: `celery report` looks at the address alone."""
    values = {setting.name: setting.value for setting in settings}
    if "broker_transport" in values:
        scheme = str(values["broker_url"]).partition("://")[0]
        TRANSPORT_ALIASES.setdefault(scheme, values["broker_transport"])


def _exit_inside_a_command(error: BrokerProfilesError) -> None:
    if click.get_current_context(silent=True) is None or debugging():
        return
    sys.stderr.write(f"Error: {error}\n")
    raise SystemExit(error.exit_status)
