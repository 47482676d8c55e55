"""What the tests of servers have in common.

Not in conftest.py: that name is shared by every folder of tests and cannot be imported from.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from broker_profiles.comparison.servers import Server, names
from broker_profiles.comparison.servers.description import load

# Without what the caller's shell says: these tests start their own.
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if name != "BROKER_PROFILES_SERVERS" and not name.removesuffix("_FILE").endswith("_URL")
}
WAYS = [("container", system) for system in names()]
WAYS += [("process", system) for system in names() if load(system).native is not None]

Have = Callable[[str, str], Server]
