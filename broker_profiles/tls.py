"""What the address of a SQL database has to say so that TLS verifies who answers.

Whoever asks RabbitMQ, Redis or MongoDB for TLS is verified to by default; libpq and PyMySQL encrypt for
whoever answers unless the address names an authority. libpq's `sslmode=require` protects from no more than
its `prefer` does: who can listen only sees nothing, and who can answer in the server's place sees all.
"""

from __future__ import annotations

import ssl
from urllib.parse import parse_qsl, quote, urlencode

from broker_profiles.settings import Environment

_OFF = frozenset({"0", "false", "no", "off", "none"})

#: PyMySQL's names for what it does anyway with the name of an authority, and without one not at all.
_IMPLIED = ("ssl", "ssl_verify_cert", "ssl_verify_identity")


def verified(url: str, environment: Environment) -> str:
    """Return a database URL whose TLS, where it asks for any, verifies the server's certificate and name.

    The authorities are the system's, or those of `SSL_CERT_FILE`, unless the address names others. What it
    says against verification stays: `sslmode=verify-ca` (no name), `ssl_verify_cert=false`. Whoever cannot
    verify a PostgreSQL server writes `sslmode=prefer`.
    """
    where, _, query = url.partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    mysql = where.lower().startswith(("mysql", "mariadb"))
    changes = _of_mysql(dict(given)) if mysql else _of_postgresql(dict(given), environment)
    if not changes:
        return url
    kept = [(name, value) for name, value in given if name not in changes]
    added = [(name, value) for name, value in changes.items() if value is not None]
    query = urlencode(kept + added, quote_via=quote, safe="/:")
    return f"{where}?{query}" if query else where


def _of_postgresql(options: dict[str, str], environment: Environment) -> dict[str, str | None]:
    """Return the options that change, with their new values; none where one is to be left out."""
    if (options.get("sslmode") or environment.get("PGSSLMODE")) != "require":
        return {}
    changes: dict[str, str | None] = {"sslmode": "verify-full"}
    if not (options.get("sslrootcert") or environment.get("PGSSLROOTCERT")):
        changes["sslrootcert"] = "system"
    return changes


def _of_mysql(options: dict[str, str]) -> dict[str, str | None]:
    """Return the options that change, with their new values; none where one is to be left out."""
    asked = {name for name in options if name == "ssl" or name.startswith("ssl_")}
    if not asked or _says(options, "ssl_disabled", on=True):
        return {}
    if asked == {"ssl"} and _says(options, "ssl", on=False):
        return {"ssl": None}
    if _says(options, "ssl_verify_cert", on=False):
        return {"ssl": None} if "ssl" in asked else {}
    changes: dict[str, str | None] = {name: None for name in _IMPLIED if name in asked}
    if _says(options, "ssl_verify_identity", on=False):
        changes["ssl_check_hostname"] = "false"
    if not asked & {"ssl_ca", "ssl_capath"}:
        changes.update(_authorities())
    return changes


def _says(options: dict[str, str], name: str, *, on: bool) -> bool:
    """Return whether an option is there and says so."""
    return name in options and (options[name].lower() in _OFF) is not on


def _authorities() -> dict[str, str]:
    """Return where OpenSSL finds the authorities that this machine trusts."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return {"ssl_ca": paths.cafile}
    # A folder that is not there has none: nobody is trusted.
    return {"ssl_capath": paths.capath or paths.openssl_capath}
