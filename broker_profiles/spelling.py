"""Settings of Celery that are almost right: Celery takes any name, and what it does not know does nothing."""

from __future__ import annotations

import difflib
from types import ModuleType

from celery import Celery
from celery.app.defaults import SETTING_KEYS

from broker_profiles.errors import MisspeltSetting

#: How like a name of Celery's a name has to be that nobody else can mean: one letter or two are wrong.
_LIKENESS = 0.9

_KNOWN = sorted(SETTING_KEYS)
_FAMILIES = tuple(sorted({f"{name.partition('_')[0]}_" for name in _KNOWN if "_" in name}))


def misspelt(name: str) -> str:
    """Return the setting of Celery that this name almost is, an empty string where it is one or none.

    Other packages have settings of their own beside Celery's, so what is merely unknown is let be.
    """
    if name in SETTING_KEYS or not name.startswith(_FAMILIES):
        return ""
    return next(iter(difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_LIKENESS)), "")


def refuse_misspelt(app: Celery) -> None:
    """Raise `MisspeltSetting` for a setting that the application's configuration almost spells right."""
    # Last are Celery's own defaults.
    for mapping in app.conf.maps[:-1]:
        for written in mapping:
            right = _right(written, app.conf.prefix or "")
            # A configuration module has functions and imports beside its settings.
            if right and not callable(mapping[written]) and not isinstance(mapping[written], ModuleType):
                raise MisspeltSetting(name=written, hint=f" Did you mean {right!r}?")


def _right(written: str, prefix: str) -> str:
    """Return what is meant, spelt as the rest of the configuration: `CELERY_TASK_...` in Django."""
    if not prefix or not written.startswith(prefix):
        return misspelt(written)
    meant = misspelt(written.removeprefix(prefix).lower())
    return meant and prefix + (meant.upper() if prefix.isupper() else meant)
