"""The environment of the suite's own processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from broker_profiles.options import PROFILE_VARIABLE
from broker_profiles.settings import ADDRESS_VARIABLES

#: The prefix of every queue and exchange of a run, so that it disturbs nothing else on a server.
PREFIX_VARIABLE = "COMPARISON_PREFIX"

#: Celery settings that a case changes, as a JSON object.
SETTINGS_VARIABLE = "COMPARISON_SETTINGS"

#: The prefix of every key of kombu's and Celery's own in a Redis that is not ours.
KEYS_VARIABLE = "COMPARISON_KEYS"

#: A folder for the names of what has to be removed from a server that is not ours.
TRACES_VARIABLE = "COMPARISON_TRACES"

#: What the caller says to applications and workers of theirs, besides addresses.
_OF_THE_CALLER = (f"{PROFILE_VARIABLE}_", "CELERY_")
_NAMES_OF_THE_CALLER = frozenset({PROFILE_VARIABLE, "BROKER_URL", "REMAP_SIGTERM", *ADDRESS_VARIABLES})


#: The settings that say which prefix kombu's keys have, and Celery's for results.
_KEYED = ("broker_transport_options", "result_backend_transport_options")


def with_keys(settings: Mapping[str, Any], keys: str) -> dict[str, Any]:
    """Return Celery settings with which every key in a Redis begins with `keys`, where that is not empty."""
    if not keys:
        return dict(settings)
    return {**settings, **{name: {**settings.get(name, {}), "global_keyprefix": keys} for name in _KEYED}}


def base_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without what would change a profile, its servers, or what is tried on them.

    `BROKER_PROFILES_...`, which is about the suite itself, stays.
    """
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OF_THE_CALLER) and name not in _NAMES_OF_THE_CALLER
    }
