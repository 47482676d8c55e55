"""What a profile is: a broker in a mode, a result store, and the promises the two keep together.

Only values live here; nothing in this module reads the environment or talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from broker_profiles.errors import redact

if TYPE_CHECKING:
    from broker_profiles.settings import Environment

#: Every promise, by its id. The wording is the contract; each has a scenario that proves or disproves it.
CONTRACT: Mapping[str, str] = MappingProxyType(
    {
        "DEL-1": "a task whose worker is killed (main process or child) runs again within 30 s",
        "DEL-2": "a broker killed and restarted under load loses no task whose delay() returned",
        "DEL-3": "delay() returns only once the broker holds the message; a broker that refuses, hangs "
        "or is full is an error within 10 s",
        "DEL-4": "a long task runs once while its worker lives; a frozen worker cannot acknowledge "
        "what another now holds",
        "DEL-5": "a message that kills its worker becomes a dead letter after 5 deliveries",
        "DEL-6": "SIGTERM under load loses no task and runs none twice",
        "DEL-7": "after a broker outage work resumes within 15 s, without a restart",
        "DEL-8": "a message that cannot be read becomes a dead letter with its reason",
        "ETA-1": "countdown and eta wait in the broker, survive restarts, and run once within 1 s",
        "ETA-2": "100,000 delayed tasks neither delay an immediate one nor grow a worker",
        "ETA-3": "expires is honoured in the queue",
        "ORD-1": "priority 9 runs before 0; no priority is the lowest",
        "ORD-2": "first in, first out within a priority, for one consumer",
        "RES-1": "a result can be read from another process, and after a restart",
        "RES-2": "groups, chords, chains, maps and chunks work, or are refused at submit",
        "RES-3": "results expire without beat",
        "RES-4": "a result store that is down delays delay() by 2 s at most and loses no finished result",
        "CTL-1": "ping, inspect, revoke, rate limits, autoscale and shutdown work by remote control",
        "CTL-2": "Flower sees every worker and task event",
        "BEAT-1": "of two beats each due tick is sent once; none is missed when one is killed or frozen",
        "SEC-1": "TLS verifies by default; only JSON is accepted",
        "CFG-1": "an unknown or impossible setting stops the start with the nearest valid name",
    }
)


class Mode(StrEnum):
    """What a profile puts first; see each broker for what `fast` gives up."""

    DURABLE = "durable"
    FAST = "fast"
    STOCK = "stock"


def version_number(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, `(4, 1, 0)` for `4.1.0-rc.1`; none where it begins with no number."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The promises one side of a profile keeps, and for each other one why it is not offered.

    Raises `ValueError` where an id is not in the contract, or is both kept and not offered.
    """

    kept: frozenset[str]
    not_offered: Mapping[str, str] = field(default_factory=dict)
    #: How many priorities make a difference: 10, 2 on quorum queues, 1 for none at all.
    priority_levels: int = 1
    #: Whether the result store can count the parts of a chord.
    chords: bool = True
    #: Kept promise -> the first version of the server with which it is, and why not with an earlier one.
    since: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = (self.kept | set(self.not_offered) | set(self.since)) - set(CONTRACT)
        if unknown:
            raise ValueError(f"not in the contract: {sorted(unknown)}")
        both = self.kept & set(self.not_offered)
        if both:
            raise ValueError(f"both kept and not offered: {sorted(both)}")

    def holds(self, guarantee: str) -> bool:
        """Return whether the promise with this id is declared. Raises `KeyError` for an unknown id."""
        CONTRACT[guarantee]
        return guarantee in self.kept

    def on(self, version: str) -> Guarantees:
        """Return what is kept with a server of this version, such as `3.10.8`; all where none is known."""
        number = version_number(version)
        missing = {id_: why for id_, (first, why) in self.since.items() if number and number < first}
        return replace(self, kept=self.kept - missing.keys(), not_offered={**self.not_offered, **missing})

    def reason(self, guarantee: str) -> str:
        """Return why a promise is not offered, or an empty string where it is."""
        if self.holds(guarantee):
            return ""
        return self.not_offered.get(guarantee, "not offered")


@dataclass(frozen=True, slots=True)
class Setting:
    """One Celery setting that a profile sets: its name, its value, who says so, and why."""

    name: str
    value: Any
    reason: str
    source: str = ""

    def shown(self) -> str:
        """Return the value for people to read, without passwords."""
        return redact(self.value)


SettingsFunction = Callable[["Environment", Mode], Iterable[Setting]]


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker as profiles name it: what it needs, what it keeps in each mode, how to configure Celery."""

    name: str
    title: str
    default_results: str
    settings: SettingsFunction = field(repr=False)
    guarantees: Mapping[Mode, Guarantees] = field(repr=False)
    #: The modules that must be importable, and the extra that brings them.
    modules: tuple[str, ...] = ()
    extra: str = ""
    #: What a reader of `list` has to know beyond the guarantees, mode by mode.
    notes: Mapping[Mode, str] = field(default_factory=dict, repr=False)
    #: The system of `comparison.servers` it needs; none for what needs no server.
    system: str | None = None
    #: The kind of address it takes, as `settings.Environment.address` names it.
    address: str | None = None
    #: What shortens the time after which a message goes to another consumer though its own still lives: a
    #: `BROKER_PROFILE_...` variable, a Celery setting `broker_...`, or the names of
    #: `broker_transport_options`; empty where nothing does.
    redelivery_timeout: str = ""
    #: Whether it lives in one process, so that workers elsewhere cannot take part.
    in_process: bool = False


@dataclass(frozen=True, slots=True)
class ResultStore:
    """A result store as profiles name it."""

    name: str
    title: str
    settings: SettingsFunction = field(repr=False)
    guarantees: Guarantees = field(repr=False)
    modules: tuple[str, ...] = ()
    extra: str = ""
    system: str | None = None
    address: str | None = None
    #: Celery's name of a result backend -> the class of ours in its place.
    backends: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The `Broker.address` it cannot do without, and what goes wrong over any other.
    only_over: str | None = None
    only_over_reason: str = ""


#: Promises that the result store keeps or not, whatever the broker.
RESULT_GUARANTEES = frozenset({"RES-1", "RES-2", "RES-3", "RES-4"})

#: Promises that the broker keeps or not, whatever the result store.
BROKER_GUARANTEES = frozenset(CONTRACT) - RESULT_GUARANTEES


@dataclass(frozen=True, slots=True)
class Profile:
    """A broker in a mode with a result store, by name; resolving one does no input or output."""

    broker: Broker
    mode: Mode
    results: ResultStore

    @property
    def name(self) -> str:
        """The shortest name that resolves to this profile, such as `redis:fast+mysql`."""
        mode = f":{self.mode}" if self.mode is Mode.FAST else ""
        store = "" if self.results.name == self.broker.default_results else f"+{self.results.name}"
        return f"{self.broker.name}{mode}{store}"

    @property
    def guarantees(self) -> Guarantees:
        """What broker and result store keep together."""
        broker, results = self.broker.guarantees[self.mode], self.results.guarantees
        kept = (broker.kept - RESULT_GUARANTEES) | (results.kept & RESULT_GUARANTEES)
        reasons = {**results.not_offered, **broker.not_offered}
        return Guarantees(
            kept=frozenset(kept),
            not_offered={id_: text for id_, text in reasons.items() if id_ not in kept},
            priority_levels=broker.priority_levels,
            chords=results.chords,
            since=broker.since,
        )

    def settings(self, environment: Environment) -> list[Setting]:
        """Return every Celery setting of this profile, in order, each with its source and reason."""
        found: dict[str, Setting] = {}
        for setting in self.broker.settings(environment, self.mode):
            found[setting.name] = _sourced(setting, f"broker {self.broker.name} ({self.mode})")
        for setting in self.results.settings(environment, self.mode):
            found[setting.name] = _sourced(setting, f"results {self.results.name}")
        return list(found.values())

    def __str__(self) -> str:
        return self.name


def _sourced(setting: Setting, source: str) -> Setting:
    if setting.source:
        return setting
    return Setting(setting.name, setting.value, setting.reason, source)
