"""Scripts on one Redis connection: loading and running them, reconnecting, forks, errors in our words.

redis-py makes the connection (addresses, TLS, logins); commands are written here, for its own client
tries some of them again by itself and takes twice as long over each.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import threading
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.retry import Retry

from broker_profiles.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable

Argument = str | bytes | int

#: Each script with the libraries it begins with.
_LIBRARIES = {
    "publish": ("store",),
    "advance": ("store",),
    "keep_marks": (),
    "reserve": ("held",),
    "acknowledge": ("held",),
    "release": ("held",),
    "set_aside": ("held",),
    "renew": ("held", "queues"),
    "forget": ("held",),
    "look": (),
    "declare": (),
    "drop": ("queues",),
    "bind": (),
    "sizes": (),
    "purge": ("held",),
    "dead_letters": ("dead",),
    "find_dead_letters": ("dead",),
    "expire_dead_letters": ("dead",),
    "replay": ("store", "dead"),
    "discard": ("dead",),
}

#: How often a script is sent where the server does not know it or our clocks have drifted apart: nothing
#: was run then, so that running it is no second time.
_ATTEMPTS = 3

#: Seconds of silence after which a connection is looked at before it is used.
_SILENCE = 0.1

_TRY_AGAIN = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
    redis_errors.MasterDownError,
)
_DENIED = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
)

# The first word of what the server says; older servers wrap it where it comes out of a script.
_WORD = re.compile(r"^-?([A-Z]+)\b(?! Error running script)|@user_script: ?\d+: -?([A-Z]+)\b")
_LATE = re.compile(r"\bLATE (\d+)")
_FULL_WORDS = frozenset(["OOM", "MISCONF"])
_DENIED_WORDS = frozenset(["NOAUTH", "WRONGPASS", "NOPERM"])
_TRY_AGAIN_WORDS = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN NOREPLICAS READONLY TRYAGAIN UNBLOCKED".split()
)


class Script:
    """A Lua script and its SHA1."""

    def __init__(self, name: str) -> None:
        folder = files(__package__) / "lua"
        names = ("common", *_LIBRARIES[name], name)
        self.source = "\n".join((folder / f"{each}.lua").read_text("utf-8") for each in names).encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


SCRIPTS = {name: Script(name) for name in _LIBRARIES}


class Link:
    """One connection, opened when needed; after a fork and after an error it opens itself anew."""

    def __init__(self, url: str, prefix: str, timeout: float, longest_block: float = 0.0) -> None:
        self._settings = _settings(url, timeout, longest_block)
        self._connection_class = self._settings.pop("connection_class", Connection)
        self._prefix = prefix
        self._name = _name(self._settings)
        self._connection: Any = None
        self._used_at = 0.0
        self._timeout = timeout
        #: How many seconds the server's clock is ahead of ours.
        self._ahead = 0.0
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def __str__(self) -> str:
        return self._name

    def script(self, name: str, arguments: Sequence[Argument] = ()) -> Any:
        """Run a script, teaching it to a server that does not know it."""
        script = SCRIPTS[name]
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return self._run(script, arguments)
                except redis_errors.NoScriptError:
                    self._exchange(("SCRIPT", "LOAD", script.source))
                except redis_errors.ResponseError as error:
                    late = _LATE.search(str(error))
                    if late is None:
                        raise
                    self._ahead = int(late.group(1)) / 1000 - time.monotonic()
            raise redis_errors.TimeoutError("it answers too slowly")
        except Exception as error:
            raise self._translated(error) from error

    def _run(self, script: Script, arguments: Sequence[Argument]) -> Any:
        self._mind_forks()
        with self._lock:
            self._open()
            gives_up = int((time.monotonic() + self._ahead + self._timeout) * 1000)
            return self._exchange(("EVALSHA", script.sha, 1, self._prefix, gives_up, *arguments))

    def command(self, *words: Argument) -> Any:
        """Run one command."""
        try:
            return self._exchange(words)
        except Exception as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        self._mind_forks()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.disconnect()

    def _exchange(self, words: Sequence[Argument]) -> Any:
        """Send a command and return the answer, or raise what redis-py raises."""
        self._mind_forks()
        with self._lock:
            connection = self._open()
            try:
                connection.send_packed_command([pack(words)], check_health=False)
                answer = connection.read_response(disable_decoding=True)
            except redis_errors.ResponseError as error:
                if _word(error) in _TRY_AGAIN_WORDS or isinstance(error, _TRY_AGAIN):
                    # The address may lead to another server by now.
                    self.close()
                raise
            except BaseException:
                # An answer that is still on its way must not be taken for the next one.
                self.close()
                raise
            self._used_at = time.monotonic()
            return answer

    def _open(self) -> Any:
        connection = self._connection
        if connection is not None:
            now = time.monotonic()
            if now - self._used_at < _SILENCE:
                return connection
            if _is_alive(connection):
                self._used_at = now
                return connection
            self.close()
        connection = self._connection_class(**self._settings)
        try:
            connection.connect()
            connection.send_command("TIME", check_health=False)
            seconds, microseconds = connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        self._ahead = int(seconds) + int(microseconds) / 1e6 - time.monotonic()
        self._used_at = time.monotonic()
        self._connection = connection
        return connection

    def _mind_forks(self) -> None:
        """Leave the parent's connection alone in a child, and its lock, which a thread may have held."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._lock = threading.RLock()
        connection, self._connection = self._connection, None
        if connection is not None:
            # redis-py knows whose it is and closes our copy of the descriptor, nothing more.
            connection.disconnect()

    def _translated(self, error: Exception) -> StoreError:
        word = _word(error)
        problem = str(error).strip().rstrip(".")
        if word in _FULL_WORDS or isinstance(error, redis_errors.OutOfMemoryError):
            return StoreFull(store=str(self), problem=problem)
        if word in _DENIED_WORDS or isinstance(error, _DENIED):
            return StoreDenied(store=str(self), problem=problem)
        if _is_certificate(error):
            problem = f"{problem}; name the authority in ssl_ca_certs in the address"
            return StoreError(store=str(self), problem=problem)
        if word in _TRY_AGAIN_WORDS or isinstance(error, (*_TRY_AGAIN, OSError)):
            return StoreUnavailable(store=str(self), problem=problem or type(error).__name__)
        return StoreError(store=str(self), problem=problem or type(error).__name__)


def pack(words: Sequence[Argument]) -> bytes:
    """Return a command as the server reads it."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def _settings(url: str, timeout: float, longest_block: float) -> dict[str, Any]:
    """Return what redis-py makes a connection of."""
    try:
        parsed: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call, unused-ignore]
    except ValueError as error:
        raise StoreError(store="Redis", problem=f"its address cannot be used: {error}") from None
    for pools_own in ("max_connections", "timeout"):
        parsed.pop(pools_own, None)
    wanted = parsed.get("ssl_cert_reqs")
    if wanted is not None:
        # Celery writes CERT_REQUIRED, redis-py "required".
        parsed["ssl_cert_reqs"] = str(wanted).lower().removeprefix("cert_")
    return {
        **parsed,
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout + longest_block,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 2,
    }


def _name(settings: dict[str, Any]) -> str:
    """Return what the server is called in messages: no user, no password."""
    if "path" in settings:
        return f"Redis at {settings['path']}"
    return f"Redis at {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _is_alive(connection: Any) -> bool:
    """Return whether the server has neither closed the connection nor said anything unasked."""
    try:
        return not connection.can_read(0)
    except (redis_errors.RedisError, OSError):
        return False


def _word(error: Exception) -> str:
    found = _WORD.search(str(error))
    return (found.group(1) or found.group(2)) if found else ""


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
