"""What the tests of the Redis store do to its server."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import redis

from tests.stores.storing import eventually


def snapshot(admin: Any) -> dict[bytes, bytes]:
    return {key: admin.dump(key) for key in admin.keys("*")}


def close_all_others(admin: Any) -> None:
    def others() -> list[str]:
        return [each["addr"] for each in admin.client_list() if each["id"] != str(admin.client_id())]

    for address in others():
        admin.client_kill(address)
    eventually(lambda: not others())


class Proxy:
    """Passes bytes on to a server, from another kind of socket; can keep the answers to itself."""

    def __init__(self, listener: socket.socket, url: str, context: ssl.SSLContext | None = None) -> None:
        settings = redis.connection.parse_url(url)
        self._target = settings["host"], settings["port"]
        self._listener = listener
        self._context = context
        self._sockets: list[socket.socket] = []
        self.mute = False
        listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with contextlib.suppress(ssl.SSLError):
                    if self._context is not None:
                        client = self._context.wrap_socket(client, server_side=True)
                    upstream = socket.create_connection(self._target)
                    self._sockets += [client, upstream]
                    for source, sink, answers in ((client, upstream, False), (upstream, client, True)):
                        threading.Thread(
                            target=self._pass_on, args=(source, sink, answers), daemon=True
                        ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.mute:
                    for each in (source, sink):
                        each.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def listening() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def self_signed(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 and its key into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
