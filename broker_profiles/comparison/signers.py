"""Keys to sign messages with, and their certificates: RSA, in PEM, as Celery's serializer `auth` has them."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


class Signer:
    """Somebody who signs messages; key and certificate are files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .sign(key, hashes.SHA256())
        )
        self.key = folder / f"{name}.key"
        self.key.touch(0o600)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def trusted_in(self, folder: Path) -> None:
        """Have whoever trusts a folder trust this one too."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.certificate.name).write_bytes(self.certificate.read_bytes())

    def variables(self, trusted: Path) -> dict[str, str]:
        """Return the environment of a process that signs as this one does, and trusts a folder."""
        return {
            "BROKER_PROFILE_SIGNING_KEY_PATH": str(self.key),
            "BROKER_PROFILE_SIGNING_CERTIFICATE_PATH": str(self.certificate),
            "BROKER_PROFILE_SIGNING_TRUSTED_PATH": str(trusted),
        }
