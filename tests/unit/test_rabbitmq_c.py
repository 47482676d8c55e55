"""The binding to rabbitmq-c decodes what py-amqp decodes, into the same, however it is cut up on its way."""

from __future__ import annotations

import gc
import importlib.util
import struct
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler, frame_writer
from amqp.serialization import dumps, loads
from hypothesis import given, settings
from hypothesis import strategies as some

pytest.importorskip(
    "broker_profiles.transports._rabbitmq_c", reason="it is built where there is a C compiler"
)
from broker_profiles.transports._rabbitmq_c import Reader, Writer
from broker_profiles.transports.librabbitmq import _moment, _rabbitmq_c

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

#: What Celery's messages have, and what is seldom.
HEADERS: dict[str, Any] = {
    "task": "mail.send",
    "id": "5d4f8b0a",
    "eta": None,
    "retries": 0,
    "timelimit": [None, 2.5],
    "stamps": {"who": "me"},
    "ignore_result": True,
    "größe": 2**40,
    "x-death": [{"count": 1, "time": datetime(2026, 1, 2, 3, 4, 5)}],
}

PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "delivery_mode": 2,
    "priority": 9,
    "correlation_id": "5d4f8b0a",
    "reply_to": "answers",
    "expiration": "60000",
    "message_id": "one",
    "timestamp": 1_700_000_000,
    "type": "task",
    "user_id": "celery",
    "app_id": "shop",
}


def reader() -> Reader:
    return Reader(_rabbitmq_c(), _moment)


def frame(type_: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", type_, channel, len(payload)) + payload + b"\xce"


def delivery(
    properties: dict[str, Any], body: bytes = b"[]", *, tag: int = 1, channel: int = 1, largest: int = 1000
) -> list[bytes]:
    """Return the frames of a message that is delivered."""
    arguments = dumps("sLbss", ("a consumer", tag, True, "", "mail"))
    message = Message(**properties)
    header = struct.pack(">HHQ", spec.Basic.CLASS_ID, 0, len(body)) + message._serialize_properties()
    parts = [body[at : at + largest] for at in range(0, len(body), largest)]
    return [
        frame(METHOD, channel, struct.pack(">HH", *spec.Basic.Deliver) + arguments),
        frame(HEADER, channel, header),
        *(frame(BODY, channel, part) for part in parts),
    ]


def by_py_amqp(frames: list[Any]) -> list[tuple[Any, ...]]:
    """Return the messages that py-amqp finds in frames: channel, arguments, properties, body."""
    found: list[tuple[Any, ...]] = []

    def receive(channel: int, method: Any, arguments: bytes, message: Message) -> None:
        assert method == spec.Basic.Deliver
        values, _ = loads("sLbss", arguments, 4)
        found.append((channel, tuple(values), message.properties, message.body or b""))

    handle = frame_handler(SimpleNamespace(bytes_recv=0), receive)
    for each in frames:
        handle(each)
    return found


def taken_apart(frames: list[bytes]) -> list[tuple[int, int, bytes]]:
    return [(each[0], int.from_bytes(each[1:3]), each[7:-1]) for each in frames]


def test_a_message_is_what_py_amqp_makes_of_it() -> None:
    frames = delivery({**PROPERTIES, "application_headers": HEADERS}, b"x" * 2500)
    found = reader().feed(b"".join(frames))
    assert found == by_py_amqp(taken_apart(frames))
    ((channel, arguments, properties, body),) = found
    assert (channel, arguments) == (1, ("a consumer", 1, True, "", "mail"))
    assert properties == {**PROPERTIES, "application_headers": HEADERS}
    assert body == b"x" * 2500


_VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**63 - 1)
    | some.floats(allow_nan=False)
    | some.text()
    | some.binary()
    | some.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1)).map(lambda at: at.replace(microsecond=0))
    | some.decimals(0, 9, places=3),
    lambda values: (
        some.lists(values, max_size=4) | some.dictionaries(some.text(max_size=20), values, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(
    headers=some.dictionaries(some.text(max_size=20), _VALUES, max_size=6),
    bodies=some.lists(some.binary(max_size=3000), min_size=1, max_size=4),
    cuts=some.lists(some.integers(1, 700), min_size=1, max_size=6),
)
def test_whatever_is_sent_and_however_it_is_cut(
    headers: dict[str, Any], bodies: list[bytes], cuts: list[int]
) -> None:
    frames = [
        each
        for tag, body in enumerate(bodies, 1)
        for each in delivery({"application_headers": headers}, body, tag=tag)
    ]
    expected = by_py_amqp(taken_apart(frames))
    sent, found, at = b"".join(frames), [], 0
    reading = reader()
    while at < len(sent):
        size = cuts[at % len(cuts)]
        found += reading.feed(sent[at : at + size])
        at += size
    # What rabbitmq-c does not know is left to py-amqp, frame by frame.
    whole = [each for each in found if len(each) == 4]
    assert whole + by_py_amqp([each for each in found if len(each) == 3]) == expected


def test_what_is_rare_is_left_to_py_amqp() -> None:
    frames = delivery({"application_headers": {"price": Decimal("1.5")}}, b"x" * 1500)
    next_one = delivery({}, tag=2)
    found = reader().feed(b"".join(frames + next_one))
    assert found == [*taken_apart(frames), *by_py_amqp(taken_apart(next_one))]


def test_messages_of_several_channels_come_between_each_other() -> None:
    one = delivery({"priority": 1}, b"1" * 1500, channel=1)
    two = delivery({"priority": 2}, b"2" * 1500, channel=2)
    mixed = [one[0], two[0], one[1], two[1], one[2], frame(HEARTBEAT, 0, b""), two[2], two[3], one[3]]
    found = reader().feed(b"".join(mixed))
    assert [each[:2] for each in found] == [(HEARTBEAT, 0), (2, found[1][1]), (1, found[2][1])]
    assert [each[2:] for each in found[1:]] == [
        ({"priority": 2}, b"2" * 1500),
        ({"priority": 1}, b"1" * 1500),
    ]


def test_a_message_without_a_body_is_a_message() -> None:
    ((_, _, properties, body),) = reader().feed(b"".join(delivery({"priority": 3}, b"")))
    assert (properties, body) == ({"priority": 3}, b"")


def test_other_frames_come_as_they_are() -> None:
    ack = struct.pack(">HHQB", *spec.Basic.Ack, 1, 0)
    assert reader().feed(frame(METHOD, 3, ack)) == [(METHOD, 3, ack)]
    answer = delivery({}, b"got")
    answer[0] = frame(METHOD, 1, struct.pack(">HHQBBBI", *spec.Basic.GetOk, 1, 0, 0, 0, 0))
    assert reader().feed(b"".join(answer)) == taken_apart(answer)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"HTTP/1.1 400 Bad Request", "a frame of"),
        (frame(METHOD, 1, b"12345")[:-1] + b"!", "without its end"),
        (b"".join([delivery({})[0], delivery({})[0]]), "within a message"),
        (b"".join([*delivery({}, b"four")[:2], frame(BODY, 1, b"fives")]), "longer than RabbitMQ said"),
    ],
)
def test_what_is_not_amqp_is_an_error(sent: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        reader().feed(sent)


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1, 2**64 - 1])
def test_no_message_is_that_large_and_what_follows_is_not_read(size: int) -> None:
    header = struct.pack(">HHQH", spec.Basic.CLASS_ID, 0, size, 0)
    reading = reader()
    with pytest.raises(ValueError, match="no message is that large"):
        reading.feed(delivery({})[0] + frame(HEADER, 1, header))
    for sent in (frame(BODY, 1, b"x" * 1000), frame(HEARTBEAT, 0, b""), b""):
        with pytest.raises(ValueError, match="what came before could not be read"):
            reading.feed(sent)


def test_tables_that_are_nested_without_end_are_left_to_py_amqp() -> None:
    table = b""
    for _ in range(5000):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    header = struct.pack(">HHQHI", spec.Basic.CLASS_ID, 0, 0, 0x2000, len(table)) + table
    frames = [delivery({})[0], frame(HEADER, 1, header)]
    assert reader().feed(b"".join(frames)) == taken_apart(frames)


#: Reads a message whose headers are 21,800 tables within each other, on a small stack.
_READ_DEEP = """
import struct, threading
from tests.unit import test_rabbitmq_c as c

table = b""
for _ in range(21_800):
    table = b"\\0F" + struct.pack(">I", len(table)) + table
header = struct.pack(">HHQHI", 60, 0, 0, 0x2000, len(table)) + table
frames = [c.delivery({})[0], c.frame(c.HEADER, 1, header)]
found = []
threading.stack_size(512 * 1024)
thread = threading.Thread(target=lambda: found.extend(c.reader().feed(b"".join(frames))))
thread.start()
thread.join()
assert found == c.taken_apart(frames)
"""


def test_tables_within_tables_do_not_need_the_stack_of_a_process() -> None:
    # In a process of its own, for it would end this one.
    done = subprocess.run([sys.executable, "-c", _READ_DEEP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_most_properties_that_c_decodes() -> None:
    usual = len(Message(application_headers={"long": ""})._serialize_properties())
    most = delivery({"application_headers": {"long": "x" * (16_384 - usual)}}, b"")
    more = delivery({"application_headers": {"long": "x" * (16_385 - usual)}}, b"")
    assert reader().feed(b"".join(most)) == by_py_amqp(taken_apart(most))
    assert reader().feed(b"".join(more)) == taken_apart(more)


def written_by_py_amqp(message: Message, arguments: bytes) -> bytes:
    sent: list[bytes] = []
    transport = SimpleNamespace(write=lambda frames: sent.append(bytes(frames)))
    write = frame_writer(SimpleNamespace(frame_max=131_072, bytes_sent=0), transport)
    write(METHOD, 7, spec.Basic.Publish, arguments, message)
    return b"".join(sent)


def written(message: Message, arguments: bytes, largest: int = 131_072) -> bytes | None:
    number = spec.Basic.Publish[0] << 16 | spec.Basic.Publish[1]
    writer = Writer(_rabbitmq_c())
    return writer.publish(7, number, arguments, message.properties, message.body, largest)


ARGUMENTS = dumps("Bssbb", (0, "tasks", "größe", True, False))


@settings(deadline=None, max_examples=60)
@given(
    headers=some.dictionaries(some.text(max_size=20), _VALUES, max_size=6),
    named=some.fixed_dictionaries(
        {}, optional={name: some.just(value) for name, value in PROPERTIES.items()}
    ),
    body=some.binary(max_size=3000),
)
def test_what_is_published_is_what_py_amqp_writes(
    headers: dict[str, Any], named: dict[str, Any], body: bytes
) -> None:
    message = Message(body, application_headers=headers, **named)
    found = written(message, ARGUMENTS)
    assert found is None or found == written_by_py_amqp(message, ARGUMENTS)


def test_a_message_of_celery_is_written_in_c() -> None:
    headers = {name: value for name, value in HEADERS.items() if name != "x-death"}
    message = Message(b"[]", application_headers=headers, cluster_id="old", **PROPERTIES)
    found = written(message, ARGUMENTS)
    assert found == written_by_py_amqp(message, ARGUMENTS)
    assert written(Message(b"", priority=None), ARGUMENTS) == written_by_py_amqp(Message(b""), ARGUMENTS)


@pytest.mark.parametrize(
    "properties",
    [
        {"application_headers": {"price": Decimal("1.5")}},
        {"application_headers": {"at": datetime(2026, 1, 2)}},
        {"application_headers": {"raw": b"bytes"}},
        {"application_headers": {"large": 2**63}},
        {"application_headers": {"lone": "\ud800"}},
        {"application_headers": {"k" * 256: 1}},
        {"application_headers": {1: 1}},
        {"application_headers": ["no table"]},
        {"application_headers": {"long": "x" * 70_000}},
        {"correlation_id": "x" * 256},
        {"correlation_id": 5},
        {"priority": 256},
        {"priority": -1},
        {"priority": "9"},
        {"timestamp": 2**64},
    ],
    ids=lambda properties: next(iter(properties)),
)
def test_what_is_rare_or_wrong_is_for_py_amqp_to_write(properties: dict[str, Any]) -> None:
    assert written(Message(b"[]", **properties), ARGUMENTS) is None


def test_tables_that_hold_themselves_are_for_py_amqp_to_write() -> None:
    table: dict[str, Any] = {}
    table["self"] = [table]
    assert written(Message(b"[]", application_headers=table), ARGUMENTS) is None


def test_what_needs_several_frames_is_for_py_amqp_to_write() -> None:
    assert written(Message(b"x" * 1000), ARGUMENTS, 1008) is not None
    assert written(Message(b"x" * 1001), ARGUMENTS, 1008) is None
    assert written(Message(b"", message_id="x" * 100), ARGUMENTS, 100) is None


def test_a_file_without_rabbitmq_c_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.so"
    with pytest.raises(ImportError, match=r"nothing\.so"):
        Reader(str(missing), _moment)
    other = importlib.util.find_spec("broker_profiles.transports._rabbitmq_c")
    assert other is not None and other.origin is not None
    with pytest.raises(ImportError, match="does not export rabbitmq-c"):
        Reader(other.origin, _moment)


def test_a_time_is_that_of_py_amqp() -> None:
    assert _moment(0) == datetime.fromtimestamp(0, tz=UTC).replace(tzinfo=None)


def test_memory_stays_flat() -> None:
    process = psutil.Process()
    # Whole messages, what is left to py-amqp, errors, and readers that end within a message.
    messages = b"".join(delivery({**PROPERTIES, "application_headers": HEADERS}, b"x" * 5000, largest=2000))
    rare = b"".join(delivery({"application_headers": {"price": Decimal("1.5"), **HEADERS}}, b"x" * 500))

    usual = Message(b"x" * 5000, application_headers={"deep": [[{"a": [1.5, None]}]] * 50}, **PROPERTIES)
    strange = Message(b"x", application_headers={**HEADERS, "price": Decimal("1.5")})
    writer = Writer(_rabbitmq_c())

    def read(times: int) -> int:
        reading = reader()
        for at in range(times):
            reading.feed(messages[:3000])
            reading.feed(messages[3000:])
            reading.feed(rare)
            if at % 10 == 0:
                broken = reader()
                with pytest.raises(ValueError, match="without its end"):
                    broken.feed(messages[:3000] + messages)
            for message in (usual, strange):
                writer.publish(1, 1, ARGUMENTS, message.properties, message.body, 131_072)
        gc.collect()
        return process.memory_info().rss

    before = read(2000)
    # A leak of a reference or of a pool in each of these would be 20 MB and more.
    assert read(20_000) - before < 8_000_000
