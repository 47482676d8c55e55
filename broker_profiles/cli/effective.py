"""Every setting that is in effect, with who says so: the profile, or the application over it."""

from __future__ import annotations

from celery import Celery
from celery.app.defaults import SETTING_KEYS

from broker_profiles.profile import Profile, Setting
from broker_profiles.settings import Environment, address_variable


def effective_settings(profile: Profile, environment: Environment, app: Celery | None) -> list[Setting]:
    """Return the profile's settings as the application has them, and then the application's own."""
    ours = [_explained(setting, profile) for setting in profile.settings(environment)]
    if app is None:
        return ours
    source = f"application {app.main}"
    shown = [
        setting
        if app.conf.get(setting.name) == setting.value
        else Setting(setting.name, app.conf.get(setting.name), f"not: {setting.reason}", source)
        for setting in ours
    ]
    names = {setting.name for setting in ours}
    own = sorted(name for name in SETTING_KEYS - names if app.conf.value_set_for(name))
    return shown + [Setting(name, app.conf.get(name), "set by the application", source) for name in own]


def _explained(setting: Setting, profile: Profile) -> Setting:
    """Say of a default address which variable would change it."""
    if setting.source != "default":
        return setting
    side = profile.broker if setting.name == "broker_url" else profile.results
    source = f"default of {address_variable(side.address)}"
    return Setting(setting.name, setting.value, setting.reason, source)
