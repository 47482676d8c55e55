"""The environment, read once into typed values.

Two families of variables: addresses (`REDIS_URL` and its like, each also as `..._FILE` for secrets)
and tuning (`BROKER_PROFILE_...`, typed and bounded, with the unit in the name). A name of the second
family that is not in `OPTIONS` is refused, so that a typing error never passes in silence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from broker_profiles.errors import (
    AmbiguousSetting,
    MalformedURL,
    UnknownSetting,
    UnreadableSecret,
    did_you_mean,
)
from broker_profiles.options import OPTIONS, PREFIX, PROFILE_VARIABLE, Value

DEFAULT_PROFILE = "embedded"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: the variable that says so (or `default`), and the URL, which may hold a password."""

    variable: str
    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """The part before `://`, in lower case."""
        return urlsplit(self.url).scheme.lower()


@dataclass(frozen=True, slots=True)
class _Kind:
    variable: str
    default: str
    schemes: tuple[str, ...]


_KINDS: Mapping[str, _Kind] = {
    "rabbitmq": _Kind("RABBITMQ_URL", "amqp://guest:guest@localhost:5672//", ("amqp", "amqps")),
    "redis": _Kind("REDIS_URL", "redis://localhost:6379/0", ("redis", "rediss", "unix")),
    "postgresql": _Kind(
        "DATABASE_URL", "postgresql://celery@localhost:5432/celery", ("postgresql", "postgres")
    ),
    "mysql": _Kind("DATABASE_URL", "mysql://celery@localhost:3306/celery", ("mysql", "mariadb")),
    "sqlite": _Kind("DATABASE_URL", "sqlite:///broker-profiles.sqlite3", ("sqlite",)),
    "mongodb": _Kind("MONGODB_URL", "mongodb://localhost:27017/celery", ("mongodb", "mongodb+srv")),
}


#: Every variable that says where a server is, in each of its forms.
ADDRESS_VARIABLES = frozenset(
    f"{prefix}{kind.variable}{suffix}"
    for kind in _KINDS.values()
    for prefix in ("", "RESULT_")
    for suffix in ("", "_FILE")
)


def address_variable(kind: str | None) -> str:
    """Return the variable that says where a server of this kind is, or an empty string where none does."""
    if kind == "database":
        return _KINDS["sqlite"].variable
    return _KINDS[kind].variable if kind is not None and kind in _KINDS else ""


class Environment:
    """The environment as this package reads it.

    Raises `UnknownSetting` and `InvalidSetting` at once for `BROKER_PROFILE_...` names; addresses are
    read, files included, when they are asked for.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._values: dict[str, Value] = {}
        for name, text in self._environ.items():
            if name.startswith(PREFIX):
                option = OPTIONS.get(name.removeprefix(PREFIX).lower())
                if option is None:
                    known = [option.variable for option in OPTIONS.values()]
                    raise UnknownSetting(name=name, hint=did_you_mean(name, known))
                self._values[option.name] = option.parse(text)

    @property
    def profile_name(self) -> str:
        """The profile asked for, `embedded` where none is."""
        return self._environ.get(PROFILE_VARIABLE, "").strip() or DEFAULT_PROFILE

    def get(self, variable: str) -> str:
        """Return a variable of any other name, or an empty string."""
        return self._environ.get(variable, "")

    def text(self, name: str) -> str:
        """Return a tuning option that is a text."""
        return str(self._values.get(name, OPTIONS[name].default))

    def number(self, name: str) -> float:
        """Return a tuning option that is a number, in the unit of its name."""
        return float(self._values.get(name, OPTIONS[name].default))

    def whole(self, name: str) -> int:
        """Return a tuning option that is a whole number."""
        return int(self._values.get(name, OPTIONS[name].default))

    def source(self, name: str) -> str:
        """Return the variable that sets a tuning option, or an empty string for its default."""
        return OPTIONS[name].variable if name in self._values else ""

    def address(self, kind: str, *, results: bool = False) -> Address:
        """Return where the server of this kind is; `RESULT_...` names come first for a result store.

        Raises `MalformedURL`, `UnreadableSecret` and `AmbiguousSetting`.
        """
        wanted = _KINDS[kind]
        names = [f"RESULT_{wanted.variable}"] if results else []
        for name in [*names, wanted.variable]:
            url = self._secret(name)
            if url is not None:
                _validate(name, url, kind, wanted)
                return Address(name, url)
        return Address("default", wanted.default)

    def any_database(self) -> Address:
        """Return what `DATABASE_URL` names, with the SQLAlchemy driver we install; a file by default."""
        url = self._secret("DATABASE_URL")
        if url is None:
            return Address("default", _KINDS["sqlite"].default)
        scheme = urlsplit(url).scheme.lower().split("+")[0]
        for kind in ("postgresql", "mysql", "sqlite"):
            if scheme in _KINDS[kind].schemes:
                _validate("DATABASE_URL", url, kind, _KINDS[kind])
                return Address("DATABASE_URL", with_driver(url))
        problem = f"its scheme is {scheme!r}, which is no database known here"
        raise MalformedURL(name="DATABASE_URL", problem=problem, example=_KINDS["postgresql"].default)

    def _secret(self, name: str) -> str | None:
        value, path = self._environ.get(name), self._environ.get(f"{name}_FILE")
        if value and path:
            raise AmbiguousSetting(name=name)
        if not path:
            return value.strip() if value else None
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UnreadableSecret(name=f"{name}_FILE", path=path, problem=problem) from None
        if not text:
            raise UnreadableSecret(name=f"{name}_FILE", path=path, problem="it is empty")
        return text


_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}


def with_driver(url: str) -> str:
    """Return a database URL that names the SQLAlchemy driver our extras install, unless it names one."""
    scheme, separator, rest = url.partition("://")
    return _DRIVERS.get(scheme.lower(), scheme) + separator + rest


def sqlite_file(url: str) -> str:
    """Return the path in `sqlite:///relative` or `sqlite:////absolute`, an empty string for none."""
    return url.partition("://")[2].removeprefix("/")


def _validate(name: str, url: str, kind: str, wanted: _Kind) -> None:
    for part in url.split(";"):
        problem = _problem(part, kind, wanted)
        if problem:
            raise MalformedURL(name=name, problem=problem, example=wanted.default)


def _problem(url: str, kind: str, wanted: _Kind) -> str:
    """Return what is wrong with a URL, without repeating it, for it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return "its port is not a number" if "ort" in str(error) else "it cannot be parsed"
    scheme = parts.scheme.lower().split("+")[0] if kind != "mongodb" else parts.scheme.lower()
    if "://" not in url or not scheme:
        return "it has no scheme"
    if scheme not in wanted.schemes:
        return f"its scheme is {scheme!r}, and this profile needs {wanted.schemes[0]!r}"
    if scheme in ("sqlite", "unix"):
        return "" if parts.path.strip("/") else "it names no file"
    if not parts.hostname:
        return "it names no host"
    if port == 0:
        return "its port is 0"
    return ""
