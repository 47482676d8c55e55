"""A real browser for tests of the report: Chromium, as the system's package has it."""

from __future__ import annotations

import os
import shutil

import pytest

from broker_profiles.comparison.servers import ServerUnavailable
from broker_profiles.comparison.servers.programs import can_install, install

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

#: It asks nobody for anything by itself, and needs no sandbox, for it opens nothing but our own page.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def program() -> str:
    """Return the path of Chromium, installed first as root on Debian; skips the test, or fails it in CI."""
    path = _find()
    problem = "chromium is not installed (Debian: apt-get install chromium)"
    if path is None and can_install():
        try:
            install("chromium")
        except ServerUnavailable as error:
            problem = str(error)
        path = _find()
    if path is not None:
        return path
    if os.environ.get("CI"):
        pytest.fail(problem)
    pytest.skip(problem)


def _find() -> str | None:
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
