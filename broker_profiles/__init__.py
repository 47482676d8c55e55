"""Celery with the same promises on every broker, chosen by one environment variable.

>>> from broker_profiles import celery_app
>>> app = celery_app("shop")  # or configure(app) for an application that exists
"""

from broker_profiles.configuration import celery_app, configure, load
from broker_profiles.errors import BrokerProfilesError, ConfigurationError
from broker_profiles.profile import Guarantees, Mode, Profile, Setting
from broker_profiles.runtime.dead_letter import DeadLetter
from broker_profiles.runtime.dead_letters import (
    discard_dead_letters,
    list_dead_letters,
    read_dead_letter,
    replay_dead_letters,
)

__all__ = [
    "BrokerProfilesError",
    "ConfigurationError",
    "DeadLetter",
    "Guarantees",
    "Mode",
    "Profile",
    "Setting",
    "celery_app",
    "configure",
    "discard_dead_letters",
    "list_dead_letters",
    "load",
    "read_dead_letter",
    "replay_dead_letters",
]
