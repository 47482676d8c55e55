"""What a run depended on besides its servers: versions of everything, the machine, the commit."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from broker_profiles.profile import Profile

_GIT_SECONDS = 10


def versions(profiles: Iterable[Profile]) -> dict[str, Any]:
    """Return the versions of this package, Celery, kombu, Python, the platform, and every driver used."""
    return {
        "broker-profiles": _version("broker-profiles"),
        "celery": _version("celery"),
        "kombu": _version("kombu"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "drivers": _drivers(profiles),
    }


def machine() -> dict[str, int | None]:
    """Return how many CPUs this process may use, and the machine's memory in bytes."""
    return {"cpus": _cpus(), "memory_bytes": psutil.virtual_memory().total}


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """Return the commit that this code is from, with `-dirty` where files differ from it; none elsewhere.

    Only where git knows this very file: an installed copy may lie inside somebody else's repository.
    """
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _drivers(profiles: Iterable[Profile]) -> dict[str, str]:
    modules = {name for profile in profiles for name in (*profile.broker.modules, *profile.results.modules)}
    distributions = metadata.packages_distributions()
    names = {name for module in modules for name in distributions.get(module, ())}
    found = {name: _version(name) for name in sorted(names, key=str.casefold)}
    return {**found, "SQLite": sqlite3.sqlite_version}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
