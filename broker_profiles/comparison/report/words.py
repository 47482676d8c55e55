"""How the page says numbers, sizes, times and standings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker_profiles.comparison.matrix import Standing


@dataclass(frozen=True, slots=True)
class Sign:
    """How a standing is shown: a word, the name of an icon, and what it means."""

    label: str
    icon: str
    meaning: str

    @property
    def css(self) -> str:
        """A class name."""
        return re.sub(r"[^a-z]+", "-", self.label)


SIGNS: dict[Standing, Sign] = {
    Standing.HOLDS: Sign("holds", "yes", "promised, and every case that can be tried there kept it"),
    Standing.BROKEN_PROMISE: Sign("broken promise", "no", "promised, and at least one case broke it"),
    Standing.NOT_OFFERED: Sign("not offered", "none", "not promised, and at least one case broke it"),
    Standing.UNDECLARED: Sign("kept, not declared", "yes", "not promised, though every case kept it"),
    Standing.SEEN_KEPT: Sign("kept", "yes", "a baseline promises nothing; every case kept it"),
    Standing.SEEN_BROKEN: Sign("broken", "no", "a baseline promises nothing; at least one case broke it"),
    Standing.NOT_TRIED: Sign(
        "not tried", "dots", "no server, or no way to try it there, or not all cases run"
    ),
    Standing.ERROR: Sign("error", "alert", "the suite failed, so nothing is known"),
}

#: How the end of a case is shown; `broken` on a column that promised nothing is no failure.
OUTCOMES = {"kept": "yes", "broken": "no", "not applicable": "dots", "error": "alert"}

_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def share_tried(cell: Mapping[str, Any]) -> str:
    """Return `4 of 5` where four cases kept a promise and a fifth does not apply there; else nothing."""
    outcomes = [case["outcome"] for case in cell["cases"]]
    kept = outcomes.count("kept")
    return f"{kept} of {len(outcomes)}" if kept and set(outcomes) == {"kept", "not applicable"} else ""


def figure(value: Any) -> str:
    """Return a number with about four digits, such as `12,345` or `0.01234`; any other value as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return f"{value:.10f}".rstrip("0") if "e" in text else text


def size(value: float) -> str:
    """Return a number of bytes, such as `23.4 GiB`."""
    power = 0
    while value >= 1024 and power < len(_SIZES) - 1:
        value /= 1024
        power += 1
    return f"{value:.3g} {_SIZES[power]}" if power else f"{value:.0f} bytes"


def seconds(value: float) -> str:
    """Return a time, such as `38 min`, `15.0 s` or `350 ms`."""
    if value >= 120:
        return f"{value / 60:.0f} min"
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1 or value == 0:
        return f"{value:.2f} s"
    return f"{value * 1000:.3g} ms"


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 case` or `1,234 cases`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
