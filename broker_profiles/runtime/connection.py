"""A connection that comes back soon after its broker: kombu tries again less and less often, up to 30 s."""

from __future__ import annotations

from typing import Any

import kombu

#: The longest pause between two attempts, in seconds. With an attempt that times out and the start of the
#: consumers after it, a worker is back well within 15 s.
_LONGEST_PAUSE = 5.0


class Reconnecting(kombu.Connection):  # type: ignore[misc]
    """kombu's connection, tried again every few seconds for as long as its broker is away."""

    def ensure_connection(self, *args: Any, interval_max: float = _LONGEST_PAUSE, **kwargs: Any) -> Any:
        """Connect, trying again; see `kombu.Connection.ensure_connection`."""
        return super().ensure_connection(*args, interval_max=interval_max, **kwargs)
