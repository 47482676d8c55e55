"""A message as one string of bytes: a JSON head with its properties, then the body as it is.

The body is neither parsed nor wrapped in base64, so a compressed or binary one costs nothing extra.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kombu.utils.json import JSONEncoder

_VERSION = 1
_HEAD = 5  # one byte for the version, four for the length of the head

_encode_head = JSONEncoder(separators=(",", ":"), check_circular=False).encode


class UnreadableEnvelope(ValueError):
    """These bytes are not a message of this transport."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The parts of a message, as kombu names them."""

    body: bytes
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any]
    properties: dict[str, Any]


def pack(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message that `Channel.prepare_message` made."""
    head = _encode_head(
        [
            message["content-type"],
            message["content-encoding"],
            message["headers"],
            message["properties"],
        ]
    ).encode()
    body = message["body"]
    if isinstance(body, str):
        body = body.encode()
    return b"%c%b%b%b" % (_VERSION, len(head).to_bytes(4, "big"), head, body)


def unpack(data: bytes) -> Envelope:
    """Return the message of these bytes. Raises `UnreadableEnvelope`."""
    if len(data) < _HEAD or data[0] != _VERSION:
        raise UnreadableEnvelope("it was not sent by broker-profiles")
    end = _HEAD + int.from_bytes(data[1:_HEAD], "big")
    try:
        content_type, content_encoding, headers, properties = json.loads(data[_HEAD:end])
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableEnvelope(f"its head cannot be read: {error}") from None
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise UnreadableEnvelope("its head is not that of a message")
    return Envelope(bytes(data[end:]), content_type, content_encoding, headers, properties)
