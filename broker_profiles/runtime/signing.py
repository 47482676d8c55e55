"""Signed messages: Celery's serializer `auth`, with the key and the certificates that the environment names.

Celery's `setup_security` asks for an application whose configuration is final. This gives kombu the
serializer before there is one; which messages are signed and taken is said by the profile's settings.
"""

from __future__ import annotations

from pathlib import Path

from celery.exceptions import SecurityError
from kombu.serialization import enable_insecure_serializers

from broker_profiles.errors import ConfigurationError
from broker_profiles.options import OPTIONS
from broker_profiles.settings import Environment

_KEY, _CERTIFICATE, _TRUSTED = _ALL = ("signing_key_path", "signing_certificate_path", "signing_trusted_path")


class IncompleteSigning(ConfigurationError):
    """Messages are signed with a key, its certificate, and a folder of trusted ones; {missing} is not set. Set all three, or none."""  # noqa: E501 - a message of one line


class UnusableSigning(ConfigurationError):
    """Messages cannot be signed or verified with the files that {variables} name: {problem}"""


class SigningNeedsCryptography(ConfigurationError):
    """Signed messages need the Python package 'cryptography': pip install 'broker-profiles[signing]'."""


def prepare(environment: Environment) -> None:
    """Have kombu sign and verify in this process, where the environment asks for it.

    Raises `IncompleteSigning`, `UnusableSigning` and `SigningNeedsCryptography`.
    """
    missing = [OPTIONS[name].variable for name in _ALL if not environment.text(name)]
    if len(missing) == len(_ALL):
        return
    if missing:
        raise IncompleteSigning(missing=" and ".join(missing))
    try:
        from celery.security.serialization import register_auth
    except ImportError:
        raise SigningNeedsCryptography from None
    trusted = Path(environment.text(_TRUSTED))
    key, certificate = _read(environment, _KEY), _read(environment, _CERTIFICATE)
    if not trusted.is_dir() or not any(trusted.iterdir()):
        raise UnusableSigning(
            variables=OPTIONS[_TRUSTED].variable, problem="it is no folder, or an empty one"
        )
    try:
        register_auth(key, None, certificate, str(trusted))
    except (OSError, ValueError, TypeError, SecurityError) as error:
        variables = ", ".join(OPTIONS[name].variable for name in _ALL)
        raise UnusableSigning(variables=variables, problem=error) from None
    enable_insecure_serializers(["auth"])


def _read(environment: Environment, name: str) -> str:
    try:
        return Path(environment.text(name)).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not PEM"
        raise UnusableSigning(variables=OPTIONS[name].variable, problem=problem) from None
