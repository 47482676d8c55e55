"""Real servers for tests: one interface, three ways (URL, container, native process)."""

from .base import FaultRefused, Server, ServerUnavailable
from .choose import provide
from .description import names
from .pool import ServerPool

__all__ = ["FaultRefused", "Server", "ServerPool", "ServerUnavailable", "names", "provide"]
