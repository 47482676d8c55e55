"""What is different between two results documents: `compare --against` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker_profiles.comparison.matrix import Standing

Document = Mapping[str, Any]

_KEPT = (Standing.HOLDS, Standing.UNDECLARED, Standing.SEEN_KEPT)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; a standing is none on the side that does not have the cell.

    Where `promise` is empty a whole column is on one side only; where `column` is empty, a promise.
    """

    column: str
    promise: str
    before: Standing | None
    after: Standing | None
    #: Of what is on one side only: whether that is the earlier one.
    gone: bool = False

    @property
    def newly_broken(self) -> bool:
        """Whether a promise that was not broken before is broken now, or held before and is withdrawn."""
        if self.after is Standing.NOT_OFFERED:
            return self.before is Standing.HOLDS
        return self.after is Standing.BROKEN_PROMISE and self.before not in (None, Standing.BROKEN_PROMISE)

    @property
    def newly_holds(self) -> bool:
        """Whether what was seen to be broken before is kept now."""
        broken = (Standing.BROKEN_PROMISE, Standing.SEEN_BROKEN, Standing.NOT_OFFERED)
        return self.after in _KEPT and self.before in broken

    def __str__(self) -> str:
        if not (self.column and self.promise):
            what = f"the column {self.column}" if self.column else f"the promise {self.promise}"
            return f"{what}: only in the earlier run" if self.gone else f"{what}: not in the earlier run"
        if self.before is None or self.after is None:
            said, side = (self.before, "earlier") if self.after is None else (self.after, "later")
            return f"{self.promise} on {self.column}: '{said}', in the {side} run only"
        label = "newly broken: " if self.newly_broken else "newly holds: " if self.newly_holds else ""
        return f"{label}{self.promise} on {self.column}: was '{self.before}', is '{self.after}'"


def compare(old: Document, new: Document) -> list[Change]:
    """Return what changed: promises newly broken first, then newly kept, then the rest.

    A column or promise that only one run has is one change, not one for each of its cells.
    """
    columns = _sides([column["name"] for column in old["columns"]], [c["name"] for c in new["columns"]])
    promises = _sides([cell["promise"] for cell in old["cells"]], [cell["promise"] for cell in new["cells"]])
    before, after = _standings(old), _standings(new)
    found = [
        Change(column, promise, before.get((column, promise)), after.get((column, promise)))
        for promise, promise_side in promises.items()
        for column, column_side in columns.items()
        if promise_side == column_side == "both"
        and before.get((column, promise)) != after.get((column, promise))
    ]
    found.sort(key=lambda change: (not change.newly_broken, not change.newly_holds))
    found += [Change(name, "", None, None, side == "old") for name, side in columns.items() if side != "both"]
    found += [
        Change("", name, None, None, side == "old") for name, side in promises.items() if side != "both"
    ]
    return found


def _standings(document: Document) -> dict[tuple[str, str], Standing]:
    return {(cell["column"], cell["promise"]): Standing(cell["standing"]) for cell in document["cells"]}


def _sides(old: Iterable[str], new: Iterable[str]) -> dict[str, str]:
    """Return name -> `old`, `new` or `both`, in the order of the later run."""
    earlier, later = dict.fromkeys(old), dict.fromkeys(new)
    both = {name: "both" if name in earlier else "new" for name in later}
    return {**both, **{name: "old" for name in earlier if name not in later}}
