"""The published form of `results.json`, as JSON Schema (draft 2020-12)."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

FILE = "results.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema as it is published with this package."""
    found: dict[str, Any] = json.loads(resources.files(__package__).joinpath(FILE).read_text("utf-8"))
    return found
