"""What a step of a mark leaves in MongoDB when it is cut off between two of its writes."""

from __future__ import annotations

import pytest

from broker_profiles.errors import StoreUnavailable
from broker_profiles.transports.store import Outgoing, Sizes, Step, Store
from tests.stores.mongodb.server import CutOff
from tests.stores.storing import bodies

pytestmark = pytest.mark.server("mongodb")

FIRST, SECOND, THIRD = Step("m", None, "1"), Step("m", "1", "2"), Step("m", "2", "3")


def _cut_off_a_step(store: Store, cut_off: CutOff, collection: str, method: str, *, done: bool) -> None:
    assert store.advance(FIRST)
    cut_off.at(collection, method, done=done)
    with pytest.raises(StoreUnavailable):
        store.advance(SECOND, [Outgoing("q", b"2")])


@pytest.mark.parametrize(
    ("collection", "method", "done"),
    [("messages", "insert_many", False), ("messages", "insert_many", True), ("marks", "update_one", False)],
)
def test_before_the_mark_nothing_has_happened(
    store: Store, other: Store, cut_off: CutOff, collection: str, method: str, done: bool
) -> None:
    _cut_off_a_step(store, cut_off, collection, method, done=done)
    assert other.marks(["m"]) == {"m": "1"}
    assert other.sizes("q") == Sizes()
    assert other.advance(Step("m", "1", "another"), [Outgoing("q", b"other")])
    assert not store.advance(SECOND, [Outgoing("q", b"2")])
    assert bodies(other.reserve("c", ["q"], 5)) == [b"other"]


@pytest.mark.parametrize("then", ["look", "again", "next", "keep"])
@pytest.mark.parametrize(
    ("collection", "method", "done"),
    [("marks", "update_one", True), ("messages", "update_many", False), ("messages", "update_many", True)],
)
def test_after_the_mark_everybody_finishes_the_step(
    store: Store, other: Store, cut_off: CutOff, collection: str, method: str, done: bool, then: str
) -> None:
    """Once, also where its message was delivered and done meanwhile."""
    _cut_off_a_step(store, cut_off, collection, method, done=done)
    if then == "look":
        assert other.marks(["m"]) == {"m": "2"}
    elif then == "again":
        assert store.advance(SECOND, [Outgoing("q", b"2")])
    elif then == "next":
        assert other.advance(THIRD, [])
    else:
        other.keep_marks(["m"], 60)
    taken = other.reserve("c", ["q"], 5)
    assert bodies(taken) == [b"2"]
    other.acknowledge([each.receipt for each in taken])
    for each in (store, other):
        each.keep_marks(["m"], 60)
        each.marks(["m"])
    assert other.sizes("q") == Sizes()
