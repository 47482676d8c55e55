"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest


def poll(condition: Callable[[], Any], seconds: float, every: float = 0.02) -> Any:
    """Return the first true value of a condition, or its last one when there is none in time."""
    value = None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            break
        time.sleep(every)
    return value


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true value of a condition; fail the test when there is none in time."""
    value = poll(condition, seconds)
    if not value:
        pytest.fail(f"{what}: not within {seconds} s")
    return value
