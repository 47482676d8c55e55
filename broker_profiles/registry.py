"""From the name of a profile to the profile: `BROKER[:MODE][+RESULTS]`.

A broker or result store is known by one line in a table here and one module, imported when asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from broker_profiles.errors import (
    MalformedProfile,
    MissingDriver,
    UnknownProfile,
    UnsupportedCombination,
    did_you_mean,
)
from broker_profiles.profile import Broker, Mode, Profile, ResultStore

#: Broker name -> module below `broker_profiles.brokers` and the name in it.
BROKERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "embedded": ("sqlite", "EMBEDDED"),
        "rabbitmq": ("rabbitmq", "BROKER"),
        "librabbitmq": ("librabbitmq", "BROKER"),
        "redis": ("redis", "BROKER"),
        "postgresql": ("postgresql", "BROKER"),
        "mysql": ("mysql", "BROKER"),
        "sqlite": ("sqlite", "SQLITE"),
        "mongodb": ("mongodb", "BROKER"),
        "memory": ("memory", "BROKER"),
        "stock-rabbitmq": ("stock", "RABBITMQ"),
        "stock-redis": ("stock", "REDIS"),
        "stock-sqlalchemy": ("stock", "SQLALCHEMY"),
        "stock-mongodb": ("stock", "MONGODB"),
    }
)

#: Result store name -> module below `broker_profiles.results` and the name in it.
RESULT_STORES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "embedded": ("sqlite", "EMBEDDED"),
        "redis": ("redis", "STORE"),
        "postgresql": ("postgresql", "STORE"),
        "mysql": ("mysql", "STORE"),
        "sqlite": ("sqlite", "SQLITE"),
        "mongodb": ("mongodb", "STORE"),
        "rpc": ("rpc", "STORE"),
        "memory": ("memory", "STORE"),
        "none": ("none", "STORE"),
        "stock-redis": ("stock", "REDIS"),
        "stock-rpc": ("stock", "RPC"),
        "stock-sqlalchemy": ("stock", "SQLALCHEMY"),
        "stock-mongodb": ("stock", "MONGODB"),
    }
)

_GRAMMAR = re.compile(r"(?P<broker>[^:+\s]+)(:(?P<mode>[^:+\s]+))?(\+(?P<results>[^:+\s]+))?")


def resolve(name: str) -> Profile:
    """Return the profile of this name; it does no input or output.

    Raises `MalformedProfile`, `UnknownProfile` or `UnsupportedCombination`.
    """
    match = _GRAMMAR.fullmatch(name.strip().lower())
    if match is None:
        raise MalformedProfile(profile=name)
    broker = find_broker(match["broker"], profile=name)
    mode = _mode(match["mode"], broker, profile=name)
    results = find_results(match["results"] or broker.default_results, profile=name)
    _check_together(broker, results, profile=name)
    return Profile(broker, mode, results)


def find_broker(name: str, *, profile: str = "") -> Broker:
    """Return the broker of this name. Raises `UnknownProfile`."""
    found = _find("brokers", BROKERS, name, part="broker", profile=profile or name)
    assert isinstance(found, Broker)
    return found


def find_results(name: str, *, profile: str = "") -> ResultStore:
    """Return the result store of this name. Raises `UnknownProfile`."""
    found = _find("results", RESULT_STORES, name, part="result store", profile=profile or name)
    assert isinstance(found, ResultStore)
    return found


def require_drivers(profile: Profile) -> None:
    """Raise `MissingDriver` unless every Python package that the profile needs can be imported."""
    for side in (profile.broker, profile.results):
        for module in side.modules:
            if importlib.util.find_spec(module) is None:
                raise MissingDriver(profile=profile.name, module=module, extra=side.extra)


def _find(
    package: str, table: Mapping[str, tuple[str, str]], name: str, *, part: str, profile: str
) -> object:
    try:
        module, attribute = table[name]
    except KeyError:
        hint = did_you_mean(name, table)
        raise UnknownProfile(part=part, name=name, profile=profile, hint=hint) from None
    return getattr(importlib.import_module(f"broker_profiles.{package}.{module}"), attribute)


def _mode(name: str | None, broker: Broker, *, profile: str) -> Mode:
    if name is None:
        return next(iter(broker.guarantees))
    offered: Iterable[str] = [str(mode) for mode in broker.guarantees]
    if name not in offered:
        hint = did_you_mean(name, offered) or f" {broker.name} has: {', '.join(offered)}."
        raise UnknownProfile(part="mode", name=name, profile=profile, hint=hint)
    return Mode(name)


def _check_together(broker: Broker, results: ResultStore, *, profile: str) -> None:
    if results.only_over is not None and results.only_over != broker.address:
        raise UnsupportedCombination(profile=profile, problem=results.only_over_reason)
