"""The decisions of the leased transport, as pure functions."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_profiles.transports import envelope, routing
from broker_profiles.transports.readahead import MOST, STALE_AFTER, ReadAhead
from broker_profiles.transports.store import Delivery, Receipt
from broker_profiles.transports.validity import problem_with, problem_with_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary(max_size=200) | st.text(max_size=200),
    st.dictionaries(st.text(), JSON, max_size=4),
    st.dictionaries(st.text(), JSON, max_size=4),
)
def test_an_envelope_gives_back_what_was_put_in(
    body: bytes | str, headers: dict[str, object], properties: dict[str, object]
) -> None:
    packed = envelope.pack(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }
    )
    parts = envelope.unpack(packed)
    assert parts.body == (body.encode() if isinstance(body, str) else body)
    assert (parts.headers, parts.properties) == (headers, properties)
    assert (parts.content_type, parts.content_encoding) == ("application/json", "utf-8")


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with contextlib.suppress(envelope.UnreadableEnvelope):
        parts = envelope.unpack(data)
        assert data.endswith(parts.body)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#", "", True),
        ("#", "a.b", True),
        ("#.b", "b", True),
        ("#.b", "a.x.b", True),
        ("#.b", "ab", False),
        ("*.b", "b", False),
        ("a+b", "aab", False),
    ],
)
def test_topics(pattern: str, key: str, matches: bool) -> None:
    assert routing.topic_matches(pattern, key) is matches


def test_kinds_of_exchange() -> None:
    bindings = [("a", "q1"), ("b", "q2"), ("a", "q3")]
    assert routing.route("direct", bindings, "a") == ["q1", "q3"]
    assert routing.route("fanout", bindings, "x") == ["q1", "q2", "q3"]
    assert routing.route("topic", [("a.*", "q1"), ("#", "q1")], "a.b") == ["q1"]


@pytest.mark.parametrize(
    ("value", "priority"), [(None, 0), (0, 0), (9, 9), (255, 9), (-1, 0), ("7", 7), ("high", 0), ([], 0)]
)
def test_priorities(value: object, priority: int) -> None:
    assert routing.priority_of({"priority": value}) == priority


def test_eta_becomes_a_delay() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    later = now + timedelta(seconds=90)
    assert routing.delay_of({"eta": later.isoformat()}, now) == 90
    assert routing.delay_of({"eta": later.replace(tzinfo=None).isoformat()}, now) == 90
    assert routing.delay_of({"eta": (now - timedelta(hours=1)).isoformat()}, now) == 0
    assert routing.delay_of({"eta": "soon"}, now) == 0
    assert routing.delay_of({}, now) == 0
    assert routing.expiry_of({"expiration": "1500"}) == 1.5
    assert routing.expiry_of({}) is None


@pytest.mark.parametrize(("ahead", "kept"), [(-90, True), (0, True), (0.9, True), (2, False), (3600, False)])
def test_an_eta_that_has_come_is_not_waited_for_again_by_a_clock_that_is_behind(
    ahead: float, kept: bool
) -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    headers = {"eta": (now + timedelta(seconds=ahead)).isoformat(), "id": "1"}
    assert routing.now_due(headers, now) == (headers if kept else {"eta": None, "id": "1"})


def deliveries(count: int) -> list[Delivery]:
    return [Delivery("q", b"", 0, Receipt(number, 1), 1) for number in range(count)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_reading_ahead_grows_while_messages_are_used_up_at_once() -> None:
    clock = Clock()
    ahead = ReadAhead(clock)
    assert ahead.extra == 0
    ahead.fill([])
    for expected in (1, 2, 4, 8, 16, 32, MOST, MOST):
        clock.now += 0.001
        ahead.fill(deliveries(ahead.extra))
        assert ahead.extra == expected
    assert ahead.extra == MOST


def test_reading_ahead_shrinks_when_tasks_take_longer() -> None:
    clock = Clock()
    ahead = ReadAhead(clock)
    for _ in range(6):
        clock.now += 0.001
        ahead.fill([])
    grown = ahead.extra
    clock.now += 1
    ahead.fill([])
    assert ahead.extra == grown // 2


def test_what_lies_aside_too_long_is_given_back_and_not_taken() -> None:
    clock = Clock()
    ahead = ReadAhead(clock)
    ahead.fill(deliveries(3))
    assert len(ahead.take(1)) == 1
    assert ahead.take_stale() == []
    clock.now += 1.01 * STALE_AFTER
    assert ahead.take(2) == []
    assert len(ahead.take_stale()) == 2
    assert ahead.extra == 0
    assert len(ahead) == 0


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [
        ({}, ""),
        ({"id": 5}, ""),
        ({"task": "t", "id": "1"}, ""),
        ({"task": "t", "id": "1", "eta": None, "timelimit": [None, 3.5], "stamped_headers": None}, ""),
        ({"task": "t"}, "its header id is None"),
        ({"task": ["t"], "id": "1"}, "its header task is ['t']"),
        ({"task": "t", "id": "1", "timelimit": [1]}, "its header timelimit is [1]"),
        ({"task": "t", "id": "1", "expires": 5}, "its header expires is 5"),
    ],
)
def test_headers_have_the_types_celery_expects(headers: dict[str, object], wrong: str) -> None:
    assert problem_with(headers).startswith(wrong)
    assert bool(problem_with(headers)) is bool(wrong)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ([[], {}, {}], ""),
        (((1,), {"x": 1}, None), ""),
        ({"args": [], "kwargs": {}}, ""),
        ([[], {}], "its body is not"),
        ("abc", "its body is not"),
        (None, "its body is not"),
        ([1, {}, {}], "its arguments are 1 and"),
        ([[], [1], {}], "its arguments by name are [1]"),
        ([[], {}, 5], "its options are 5"),
    ],
)
def test_the_body_of_a_task_message_is_a_call(body: object, wrong: str) -> None:
    assert problem_with_call(body).startswith(wrong)
    assert bool(problem_with_call(body)) is bool(wrong)
