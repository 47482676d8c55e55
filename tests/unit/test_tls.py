"""The front before a server speaks TLS, and counts who took its certificate and who did not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_profiles.comparison.tls import Authority, Front, MySQLFront, secured_url
from broker_profiles.comparison.tls_mysql import packet
from tests.unit.echo import Echo
from tests.waiting import until

HERE = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "known")


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


def speak(plain: socket.socket, context: ssl.SSLContext, words: bytes) -> bytes:
    """Send words over TLS and return as many as come back."""
    with context.wrap_socket(plain, server_hostname=HERE) as secured:
        secured.sendall(words)
        answer = b""
        while len(answer) < len(words):
            answer += secured.recv(65_536)
        return answer


@pytest.mark.parametrize("words", [b"ping", bytes(3_000_000)], ids=["few", "many"])
def test_what_a_client_says_reaches_the_server_and_back(
    echo: Echo, authority: Authority, words: bytes
) -> None:
    with Front(HERE, echo.port, authority.context(HERE)) as front:
        plain = socket.create_connection((HERE, front.port), 10)
        assert speak(plain, trusting(authority), words) == words
        assert (front.accepted, front.refused) == (1, 0)


@pytest.mark.parametrize("host", [HERE, "elsewhere.example"])
def test_a_client_that_does_not_take_the_certificate_is_counted(
    echo: Echo, authority: Authority, tmp_path: Path, host: str
) -> None:
    issuer = Authority(tmp_path, "stranger") if host == HERE else authority
    with Front(HERE, echo.port, issuer.context(host)) as front:
        plain = socket.create_connection((HERE, front.port), 10)
        with pytest.raises(ssl.SSLCertVerificationError):
            speak(plain, trusting(authority), b"ping")
        until(lambda: front.refused == 1, 10, "the refusal is counted")
        assert front.accepted == echo.here == 0


def test_a_client_that_leaves_after_the_handshake_did_not_take_it(echo: Echo, authority: Authority) -> None:
    with Front(HERE, echo.port, authority.context(HERE)) as front:
        plain = socket.create_connection((HERE, front.port), 10)
        trusting(authority).wrap_socket(plain, server_hostname=HERE).close()
        until(lambda: front.refused == 1, 10, "the refusal is counted")
        assert front.accepted == 0


def test_a_client_of_postgresql_asks_first(echo: Echo, authority: Authority) -> None:
    with Front(HERE, echo.port, authority.context(HERE)) as front:
        plain = socket.create_connection((HERE, front.port), 10)
        plain.sendall(bytes.fromhex("0000000804d2162f"))
        assert plain.recv(1) == b"S"
        assert speak(plain, trusting(authority), b"ping") == b"ping"


GREETING = b"\x0a8.0.1\0" + b"\x01\0\0\0" + b"challenge"[:8] + b"\0" + b"\xff\xf7" + bytes(20)


def packed(number: int, words: bytes) -> bytes:
    return len(words).to_bytes(3, "little") + bytes([number]) + words


class MySQLServer:
    """Speaks no TLS, asks for another kind of password, and then lets in."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server((HERE, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, contextlib.suppress(ConnectionError):
            for words in (
                packed(0, GREETING),
                packed(2, b"\xfeother"),
                packed(4, b"\x01\x03") + packed(5, b"\0OK"),
            ):
                client.sendall(words)
                self.heard.append(packet(client))
            client.sendall(packed(1, b"\0done"))

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def mysql() -> Iterator[MySQLServer]:
    server = MySQLServer()
    yield server
    server.close()


def test_a_client_of_mysql_begins_tls_in_the_middle_of_its_login(
    mysql: MySQLServer, authority: Authority
) -> None:
    with MySQLFront(HERE, mysql.port, authority.context(HERE)) as front:
        plain = socket.create_connection((HERE, front.port), 10)
        assert packet(plain) == packed(0, GREETING.replace(b"\xff\xf7", b"\xff\xff"))
        can = b"\x0d\xaa\0\0"  # TLS among them
        plain.sendall(packed(1, can + bytes(28)))
        with trusting(authority).wrap_socket(plain, server_hostname=HERE) as secured:
            secured.sendall(packed(2, can + bytes(28) + b"user\0"))
            assert packet(secured) == packed(3, b"\xfeother")
            secured.sendall(packed(4, b"password"))
            assert (packet(secured), packet(secured)) == (packed(5, b"\x01\x03"), packed(6, b"\0OK"))
            secured.sendall(packed(0, b"command"))
            assert packet(secured) == packed(1, b"\0done")
        assert (front.accepted, front.refused) == (1, 0)
    can = b"\x0d\xa2\0\0"
    assert mysql.heard == [
        packed(1, can + bytes(28) + b"user\0"),
        packed(3, b"password"),
        packed(0, b"command"),
    ]


def test_a_client_of_mysql_that_logs_in_in_clear_is_refused(mysql: MySQLServer, authority: Authority) -> None:
    with MySQLFront(HERE, mysql.port, authority.context(HERE)) as front:
        with socket.create_connection((HERE, front.port), 10) as plain:
            packet(plain)
            plain.sendall(packed(1, b"\x0d\xa2\0\0" + bytes(28) + b"user\0"))
            until(lambda: front.refused == 1, 10, "the refusal is counted")
        assert front.accepted == 0


@pytest.mark.parametrize(
    ("url", "secured"),
    [
        ("amqp://u:p@h:5672/vhost", "amqps://u:p@127.0.0.1:1/vhost"),
        ("redis://:p@h/0", "rediss://:p@127.0.0.1:1/0"),
        ("mongodb://u:p@h/db?authSource=admin", "mongodb://u:p@127.0.0.1:1/db?authSource=admin&tls=true"),
        (
            "postgresql+psycopg://h/db",
            "postgresql+psycopg://127.0.0.1:1/db?sslmode=require",
        ),
        ("mysql://u:p@h/db", "mysql://u:p@127.0.0.1:1/db?ssl=true"),
    ],
)
def test_each_system_is_asked_for_tls_in_its_own_way(url: str, secured: str) -> None:
    assert secured_url(url, HERE, 1) == secured
