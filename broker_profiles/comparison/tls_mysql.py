"""The packets with which a login at MySQL or MariaDB begins, as a front changes them that ends TLS.

The server speaks first, in clear, and packets are numbered. The client's packet that asks for TLS does not
reach a server that speaks none, so that to the server all that follow are one number lower.
"""

from __future__ import annotations

import socket

#: The length of a packet's header: that of what follows, in three bytes, and the number of the packet.
_HEADER = 4

#: The bit for TLS in the second byte of what client and server can do.
_TLS = 0x08

#: The length of a packet that asks for TLS.
_TLS_REQUEST = 32

#: What the last answer of a login begins with, and the one that is not the last and wants no answer.
_LAST = (0x00, 0xFF)
_PASSWORD_KNOWN = b"\x01\x03"


def packet(source: socket.socket, begun: bytes = b"") -> bytes:
    """Return one whole packet. Raises `ConnectionError` where the source ends before."""
    header = _exactly(source, _HEADER, begun)
    return _exactly(source, _HEADER + int.from_bytes(header[:3], "little"), header)


def _exactly(source: socket.socket, size: int, data: bytes) -> bytes:
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise ConnectionError("it has gone")
        data += more
    return data


def offering_tls(greeting: bytes) -> bytes:
    """Return a server's greeting as that of one which speaks TLS."""
    # The protocol, the version up to a zero, the connection, eight bytes of a challenge, a zero,
    # and the first byte of what the server can do.
    return _with_byte(greeting, greeting.index(0, _HEADER + 1) + 1 + 4 + 8 + 1 + 1, on=True)


def asks_for_tls(request: bytes) -> bool:
    """Return whether a client's first packet asks for TLS, and does not log in in clear."""
    return len(request) == _HEADER + _TLS_REQUEST and bool(request[_HEADER + 1] & _TLS)


def without_tls(response: bytes) -> bytes:
    """Return a client's login as that of one which has not asked for TLS."""
    return renumbered(_with_byte(response, _HEADER + 1, on=False), -1)


def renumbered(data: bytes, step: int) -> bytes:
    """Return a packet with another number."""
    return data[:3] + bytes([data[3] + step]) + data[_HEADER:]


def is_last(answer: bytes) -> bool:
    """Return whether the server has let the client in, or refused it."""
    return answer[_HEADER] in _LAST


def wants_an_answer(answer: bytes) -> bool:
    """Return whether it is the client's turn, where that was not the server's last word."""
    return answer[_HEADER:] != _PASSWORD_KNOWN


def _with_byte(data: bytes, place: int, *, on: bool) -> bytes:
    byte = data[place] | _TLS if on else data[place] & ~_TLS
    return data[:place] + bytes([byte]) + data[place + 1 :]
