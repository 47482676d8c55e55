"""Which way a server is had."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping

from . import description, external
from .base import Server, ServerUnavailable

VARIABLE = "BROKER_PROFILES_SERVERS"
WAYS = ("url", "container", "process")


def provide(system: str, environ: Mapping[str, str] = os.environ) -> Server:
    """A server of the system that answers: by URL, else a container, else a native process.

    ``BROKER_PROFILES_SERVERS`` restricts the ways to one. ``ServerUnavailable`` has one line for
    each way that was tried. The caller closes the server.
    """
    wanted = description.load(system)
    reasons: list[str] = []
    for way in _ways(environ):
        try:
            if way != "url":
                return _start(way, wanted, environ)
            if url := external.named(wanted, environ):
                # If it does not answer no other is started: whoever names a server wants that one.
                return external.connect(wanted, url)
            schemes = " or ".join(f"{scheme}://" for scheme in wanted.schemes)
            reasons.append(f"  url: {wanted.url_variable} has no URL with {schemes}")
        except ServerUnavailable as error:
            reasons.append(f"  {way}: {error}")
            if way == "url":
                break
    raise ServerUnavailable("\n".join([f"no {wanted.name} server:", *reasons]))


def _start(way: str, system: description.System, environ: Mapping[str, str]) -> Server:
    try:
        from . import containers, processes  # they need the extra "servers"
    except ImportError as error:
        raise ServerUnavailable(f"{error.name} is missing: pip install 'broker-profiles[servers]'") from None
    start = containers.start if way == "container" else processes.start
    return start(system, environ)


def _ways(environ: Mapping[str, str]) -> tuple[str, ...]:
    way = environ.get(VARIABLE, "").strip()
    if not way:
        return WAYS
    if way not in WAYS:
        near = difflib.get_close_matches(way, WAYS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ServerUnavailable(f"{VARIABLE} is {way!r}, not one of {', '.join(WAYS)}{hint}")
    return (way,)
