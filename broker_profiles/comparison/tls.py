"""TLS before servers that speak none: a front that ends it, and certificates of an authority of our own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import select
import socket
import socketserver
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker_profiles.comparison import tls_mysql

_CHUNK = 65_536

#: How long a client may take to say whether it trusts us, in seconds.
_HANDSHAKE_SECONDS = 20.0

#: Scheme -> the scheme and the option that ask for TLS, and say nothing about whom to trust.
_ASKING = {
    "amqp": ("amqps", ""),
    "redis": ("rediss", ""),
    "mongodb": ("mongodb", "tls=true"),
    "postgresql": ("postgresql", "sslmode=require"),
    "mysql": ("mysql", "ssl=true"),
}

#: What PostgreSQL's clients say first, in clear, to be answered with one letter: the number of SSLRequest.
_SSL_REQUEST = (8).to_bytes(4, "big") + (80_877_103).to_bytes(4, "big")


class Authority:
    """Vouches for servers; its own certificate is in `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._sign(name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def context(self, host: str) -> ssl.SSLContext:
        """Return what a server at this host name or address uses."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            where: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            where = x509.DNSName(host)
        certificate = self._sign(host, key.public_key(), x509.SubjectAlternativeName([where]))
        file = self._folder / f"{self._name}-{host}.pem"
        file.touch(0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(
        self, subject: str, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(_named(subject))
            .issuer_name(_named(self._name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Front:
    """Listens on a port of 127.0.0.1 with TLS, for a block, and carries what comes to `host:port` without.

    `accepted` and `refused` count the connections whose clients did and did not take the certificate.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self.accepted = self.refused = 0
        self._connected = 0
        self._counting = threading.Lock()
        front = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # one side is gone: so is the other
                    front._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._target = (host, port)
        self._context = context
        self._server = Server(("127.0.0.1", 0), Connection)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="tls", daemon=True)

    def __enter__(self) -> Front:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def decided(self) -> bool:
        """Return whether every client that has come so far is counted: it may know first that it refused."""
        with self._counting:
            return self._connected == self.accepted + self.refused

    def _count(self, *, accepted: bool) -> None:
        with self._counting:
            self.accepted += accepted
            self.refused += not accepted

    def _serve(self, client: socket.socket) -> None:
        with self._counting:
            self._connected += 1
        client.settimeout(_HANDSHAKE_SECONDS)
        with contextlib.ExitStack() as closing:
            try:
                server = self._begin(client, closing)
                secured = closing.enter_context(self._context.wrap_socket(client, server_side=True))
                # Some look at the name in the certificate when the handshake is over. All speak first.
                words = secured.recv(_CHUNK)
            except OSError:
                words = b""
            self._count(accepted=bool(words))
            if not words:
                return
            server = server or self._connect(closing)
            self._log_in(words, secured, server)
            for side in (secured, server):
                side.settimeout(None)
            _carry(secured, server)

    def _connect(self, closing: contextlib.ExitStack) -> socket.socket:
        return closing.enter_context(socket.create_connection(self._target, _HANDSHAKE_SECONDS))

    def _begin(self, client: socket.socket, closing: contextlib.ExitStack) -> socket.socket | None:
        """Say what comes before TLS; return the connection to the server, where that had to be asked."""
        if client.recv(len(_SSL_REQUEST), socket.MSG_PEEK) == _SSL_REQUEST:
            client.recv(len(_SSL_REQUEST))
            client.sendall(b"S")
        return None

    def _log_in(self, words: bytes, secured: ssl.SSLSocket, server: socket.socket) -> None:
        """Carry the client's first words, and all that has to be changed on its way."""
        server.sendall(words)


def _carry(secured: ssl.SSLSocket, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    while True:
        readable = [secured] if secured.pending() else select.select([secured, server], [], [])[0]
        for source in readable:
            data = source.recv(_CHUNK)
            if not data:
                return
            (server if source is secured else secured).sendall(data)


class MySQLFront(Front):
    """A front before MySQL or MariaDB, where TLS begins in the middle of the login."""

    def _begin(self, client: socket.socket, closing: contextlib.ExitStack) -> socket.socket | None:
        server = self._connect(closing)
        client.sendall(tls_mysql.offering_tls(tls_mysql.packet(server)))
        if not tls_mysql.asks_for_tls(tls_mysql.packet(client)):
            raise ConnectionError("it speaks in clear")
        return server

    def _log_in(self, words: bytes, secured: ssl.SSLSocket, server: socket.socket) -> None:
        server.sendall(tls_mysql.without_tls(tls_mysql.packet(secured, words)))
        while True:
            answer = tls_mysql.packet(server)
            secured.sendall(tls_mysql.renumbered(answer, 1))
            if tls_mysql.is_last(answer):
                return
            if tls_mysql.wants_an_answer(answer):
                server.sendall(tls_mysql.renumbered(tls_mysql.packet(secured), -1))


def front_before(url: str, context: ssl.SSLContext) -> Front:
    """Return a front of the right kind before the server of an address."""
    parts = urlsplit(url)
    kind = MySQLFront if parts.scheme.startswith("mysql") else Front
    return kind(parts.hostname or "127.0.0.1", parts.port or 0, context)


def secured_url(url: str, host: str, port: int) -> str:
    """Return the address of a server behind a front at `host:port`, as its clients ask for TLS."""
    parts = urlsplit(url)
    name, plus, driver = parts.scheme.partition("+")
    scheme, option = _ASKING[name]
    account, at, _ = parts.netloc.rpartition("@")
    netloc = f"{account}{at}{host}:{port}"
    query = "&".join(filter(None, (parts.query, option)))
    return urlunsplit(parts._replace(scheme=scheme + plus + driver, netloc=netloc, query=query))
