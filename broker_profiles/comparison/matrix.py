"""From how cases ended and what a profile declares to what a reader is told about a promise."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from broker_profiles.comparison.scenario import Outcome


class Standing(StrEnum):
    """What is said of one promise on one column."""

    HOLDS = "holds"
    BROKEN_PROMISE = "broken promise"
    NOT_OFFERED = "not offered"
    UNDECLARED = "kept, but not declared"
    #: Of a baseline, which declares nothing: what was seen.
    SEEN_KEPT = "kept"
    SEEN_BROKEN = "broken"
    NOT_TRIED = "not tried"
    ERROR = "error"

    @property
    def fails(self) -> bool:
        """Whether the run fails by it."""
        return self in (Standing.BROKEN_PROMISE, Standing.ERROR)


def standing(outcomes: Iterable[Outcome], *, declared: bool, baseline: bool) -> Standing:
    """Return what the outcomes of all the cases of a promise amount to.

    One broken case breaks the promise. A case that could not be tried says nothing, unless none could.
    An error of the suite outweighs all but a break that was seen.
    """
    seen = set(outcomes)
    if Outcome.BROKEN in seen:
        if declared:
            return Standing.BROKEN_PROMISE
        return Standing.SEEN_BROKEN if baseline else Standing.NOT_OFFERED
    if Outcome.ERROR in seen:
        return Standing.ERROR
    if Outcome.KEPT not in seen:
        return Standing.NOT_TRIED
    if declared:
        return Standing.HOLDS
    return Standing.SEEN_KEPT if baseline else Standing.UNDECLARED
