"""Celery's results as messages, which are not waited for without end."""

from __future__ import annotations

from celery.backends import rpc

from broker_profiles.results.waiting import BoundedWait


class RPCBackend(BoundedWait, rpc.RPCBackend):  # type: ignore[misc]
    """A result backend whose `get()` ends."""
