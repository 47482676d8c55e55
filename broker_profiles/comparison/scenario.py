"""What a scenario is: cases that each try to break one promise, and the ways a case can end.

A scenario is a module of `comparison/scenarios` with `GUARANTEE`, the id of the promise, and functions
marked `@case`. It knows a `Stage` (profile, ledger, workers, client, server) and no broker.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

from broker_profiles.profile import CONTRACT

if TYPE_CHECKING:
    from broker_profiles.comparison.stage import Stage

_PACKAGE = "broker_profiles.comparison.scenarios"


class PromiseBroken(Exception):
    """A promise does not hold here; the text says what happened, in one sentence."""


class TooLate(PromiseBroken):
    """Right, but not in time. On a busy machine that may be the machine's fault: it is tried again alone."""


class NotApplicable(Exception):
    """The case cannot be tried on this profile or server; the text says why."""


class Outcome(StrEnum):
    """How a case ended, whatever was promised."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_APPLICABLE = "not applicable"
    #: The suite itself failed: nothing is known about the promise.
    ERROR = "error"


Body = Callable[["Stage"], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to try a promise. `fresh`: what it leaves behind would disturb others on the same server."""

    guarantee: str
    title: str
    name: str
    run: Body
    quick: bool
    fresh: bool

    @property
    def id(self) -> str:
        """`DEL-1/worker_killed`: how a user selects it."""
        return f"{self.guarantee}/{self.name}"


def case(title: str, *, quick: bool = False, fresh: bool = False) -> Callable[[Body], Body]:
    """Mark a function as a case of its module's promise; `quick` ones are part of `compare-quick`."""

    def mark(body: Body) -> Body:
        body.__dict__["case"] = (title, quick, fresh)
        return body

    return mark


def cases_of(module: ModuleType) -> list[Case]:
    """Return the cases of a scenario, in the order of the file. Raises `ValueError` where it is none."""
    guarantee = getattr(module, "GUARANTEE", "")
    if guarantee not in CONTRACT:
        raise ValueError(f"{module.__name__}: GUARANTEE is {guarantee!r}, which is not in the contract")
    found = [
        Case(guarantee, title, body.__name__, body, quick, fresh)
        for body in _marked(module)
        for title, quick, fresh in [body.case]
    ]
    if not found:
        raise ValueError(f"{module.__name__} has no case")
    return found


def _marked(module: ModuleType) -> list[Any]:
    """Return the functions marked in this module; one that it imports is a case of its own module alone."""
    return [
        value
        for name, value in vars(module).items()
        if hasattr(value, "case") and (value.__module__, value.__name__) == (module.__name__, name)
    ]


def all_cases() -> list[Case]:
    """Return every case of every scenario, in the order of the contract.

    Raises `ValueError` for a module that has cases and no promise, or a promise and no cases.
    """
    package = importlib.import_module(_PACKAGE)
    modules = [
        importlib.import_module(f"{_PACKAGE}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    order = list(CONTRACT)
    scenarios = [cases_of(module) for module in modules if hasattr(module, "GUARANTEE") or _marked(module)]
    scenarios.sort(key=lambda cases: order.index(cases[0].guarantee))
    return [found for cases in scenarios for found in cases]


def select(cases: Iterable[Case], wanted: Iterable[str]) -> list[Case]:
    """Return the cases of these names: `DEL-1`, `DEL-1/worker_killed` or a family such as `DEL`.

    Raises `LookupError` with the first name that none has.
    """
    chosen = list(cases)
    names = [name.strip() for name in wanted if name.strip()]
    for name in names:
        if not any(_named(found, name) for found in chosen):
            raise LookupError(name)
    return [found for found in chosen if not names or any(_named(found, name) for name in names)]


def _named(found: Case, name: str) -> bool:
    family = found.guarantee.partition("-")[0]
    return name.casefold() in (found.id.casefold(), found.guarantee.casefold(), family.casefold())
