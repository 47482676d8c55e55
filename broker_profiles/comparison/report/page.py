"""The results document as one HTML page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from broker_profiles.comparison.matrix import Standing
from broker_profiles.comparison.report import measures, plots, story, words

Document = Mapping[str, Any]

#: After these a long name may be broken.
_BREAKS = "@:/-_+."


#: Control characters, signs that turn the direction of a text, halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the matrix with its evidence."""

    key: str
    column: Mapping[str, Any]
    promise: str
    sign: words.Sign
    data: Mapping[str, Any]

    @property
    def standing(self) -> Standing:
        """What is said of the promise."""
        return Standing(self.data["standing"])

    @property
    def share_tried(self) -> str:
        """How many of its cases kept it, such as `4 of 5`, where the others do not apply; else nothing."""
        return words.share_tried(self.data)

    @property
    def sentence(self) -> str:
        """What a reader should know before opening it."""
        for outcome in ("broken", "error", "not applicable"):
            for case in self.data["cases"]:
                if case["outcome"] == outcome and case["detail"]:
                    return f"{case['title']}: {case['detail']}"
        return str(self.column["unavailable"] or "")


@dataclass(frozen=True, slots=True)
class Promise:
    """A row of the matrix: its cells are in the order of the columns, none where a document has none."""

    id: str
    wording: str
    cells: list[Cell | None]


def render(document: Document) -> str:
    """Return the page."""
    environment = _environment()
    promises = _promises(document)
    cells = [cell for promise in promises for cell in promise.cells if cell is not None]
    script = environment.get_template("page.js").render()
    return environment.get_template("page.html").render(
        document=document,
        columns=_columns(document),
        promises=promises,
        families=_families(promises),
        by_name={column["name"]: column for column in _columns(document)},
        left_out=[id_ for id_ in document["promises"] if id_ not in {promise.id for promise in promises}],
        failed=[cell for cell in cells if cell.standing.fails],
        counts=_counts(cells),
        recoveries=plots.recoveries(document),
        measures=measures.measures(document),
        signs=words.SIGNS,
        seconds=_length(document),
        style=Markup(environment.get_template("page.css").render()),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "figure": words.figure,
        "size": words.size,
        "seconds": words.seconds,
        "count": words.count,
        "breakable": _breakable,
        "moment": _moment,
        "pairs": _pairs,
        "memory": _memory,
        "verdict": _verdict,
        "story": story.story,
        "strip": story.strip,
    }
    environment.globals |= {"OUTCOMES": words.OUTCOMES, "WIDTH": story.WIDTH}
    return environment


def _visible(value: Any) -> Any:
    """Show what would change the direction of a text, or could not be shown at all, as a question mark."""
    return _UNSEEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _columns(document: Document) -> list[dict[str, Any]]:
    """Return the columns with a key for ids; the baselines come last, as they are set apart."""
    keyed = [{**column, "key": f"c{number}"} for number, column in enumerate(document["columns"])]
    return sorted(keyed, key=lambda column: column["baseline"])


def _promises(document: Document) -> list[Promise]:
    columns = _columns(document)
    found = {(cell["column"], cell["promise"]): cell for cell in document["cells"]}
    tried = {promise for _, promise in found}
    return [
        Promise(id_, wording, list(_cells_of(id_, columns, found)))
        for id_, wording in document["promises"].items()
        if id_ in tried
    ]


def _families(promises: Iterable[Promise]) -> dict[str, list[Promise]]:
    found: dict[str, list[Promise]] = {}
    for promise in promises:
        found.setdefault(promise.id.partition("-")[0], []).append(promise)
    return found


def _cells_of(
    promise: str, columns: Iterable[Mapping[str, Any]], found: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[Cell | None]:
    for column in columns:
        data = found.get((column["name"], promise))
        if data is None:
            yield None
        else:
            sign = words.SIGNS[Standing(data["standing"])]
            yield Cell(f"{promise}-{column['key']}", column, promise, sign, data)


def _counts(cells: Iterable[Cell]) -> list[tuple[words.Sign, int]]:
    said = [cell.standing for cell in cells]
    return [(sign, said.count(standing)) for standing, sign in words.SIGNS.items() if standing in said]


def _length(document: Document) -> float:
    began, ended = (datetime.fromisoformat(document[name]) for name in ("started", "finished"))
    return (ended - began).total_seconds()


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")


def _breakable(text: str) -> Markup:
    """Return a name that may be broken where a reader expects it."""
    return Markup("").join(
        escape(letter) + Markup("<wbr>") if letter in _BREAKS else escape(letter) for letter in text
    )


# What a measurement has beside its median may be a number, several by name, or nothing.


def _pairs(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words.figure(one)}" for name, one in value.items() if one is not None)
    return "" if value is None else words.figure(value)


def _memory(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words.size(one)}" for name, one in value.items() if one is not None)
    return "" if value is None else words.size(value)


def _verdict(account: Mapping[str, Any] | None) -> str:
    if not account:
        return ""
    return ", ".join(
        words.figure(account[name]) for name in ("sent", "lost", "duplicated") if name in account
    )
