"""Everything this package raises, under one root.

The docstring of a class is its message: `{names}` in it are filled in from the keyword arguments, so
that every error says what is wrong and what to do about it, in one line. Values that may hold a
password must be passed through `redact` first.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterable

# To the last @ of an address: a password may hold anything that somebody forgot to escape.
_CREDENTIALS = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@]*):[^\s;]*@")
#: Names of settings, headers and arguments whose values only their owner should know.
SECRET_NAME = re.compile(
    r"pass|pwd|\bpw\b|secret|token|credential|authorization|cookie|(access|api|account|private)[-_]?key",
    re.IGNORECASE,
)

HIDDEN = "***"

_IN_QUERY = re.compile(r"(?P<head>[?&][^=&\s]*(?:password|passwd|pwd|secret)=)[^&\s;]*", re.IGNORECASE)


def debugging() -> bool:
    """Return whether `BROKER_PROFILES_DEBUG` asks for tracebacks instead of one line."""
    return os.environ.get("BROKER_PROFILES_DEBUG", "").lower() in ("1", "true", "yes", "on", "t", "y")


def redact(text: object) -> str:
    """Return `text` with the password of every URL in it replaced by `***`."""
    return _IN_QUERY.sub(r"\g<head>***", _CREDENTIALS.sub(r"\g<head>:***@", str(text)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class BrokerProfilesError(Exception):
    """Something in broker-profiles went wrong."""

    #: What a command exits with: 2 for what the user wrote, 1 for what failed.
    exit_status = 1

    def __init__(self, **details: object) -> None:
        # As text, so that the error can be pickled on its way out of a child process.
        self.details = {
            name: value if isinstance(value, int | float) else redact(value)
            for name, value in details.items()
        }
        super().__init__(redact(inspect.cleandoc(type(self).__doc__ or "").format(**details)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.details)


def _rebuild(cls: type[BrokerProfilesError], details: dict[str, object]) -> BrokerProfilesError:
    return cls(**details)


class ConfigurationError(BrokerProfilesError):
    """The configuration is wrong: {problem}"""

    exit_status = 2


class UnknownProfile(ConfigurationError):
    """Unknown {part} {name!r} in the profile {profile!r}.{hint} `broker-profiles list` shows all."""


class MalformedProfile(ConfigurationError):
    """The profile {profile!r} is not of the form BROKER[:MODE][+RESULTS], such as 'redis:fast+mysql'."""


class UnsupportedCombination(ConfigurationError):
    """The profile {profile!r} cannot be: {problem}"""


class UnknownSetting(ConfigurationError):
    """Unknown environment variable {name}.{hint} Correct it, or unset it."""


class MisspeltSetting(ConfigurationError):
    """Celery has no setting {name!r}.{hint} Correct it, or remove it."""


class InvalidSetting(ConfigurationError):
    """{name} is {value!r}, but has to be {expected}."""


class MalformedURL(ConfigurationError):
    """{name} is not a usable address: {problem}. It should look like {example}."""


class UnreadableSecret(ConfigurationError):
    """{name} names the file {path!r}, which cannot be read: {problem}."""


class AmbiguousSetting(ConfigurationError):
    """Both {name} and {name}_FILE are set; keep one of them."""


class ConflictingSetting(ConfigurationError):
    """{name} is set to {value!r}, but {source} says {ours!r}; remove one of the two."""


class MissingDriver(ConfigurationError):
    """The profile {profile!r} needs the Python package {module!r}: pip install 'broker-profiles[{extra}]'."""


class StoreError(BrokerProfilesError):
    """{store} failed: {problem}"""


class StoreUnavailable(StoreError):
    """{store} cannot be reached: {problem}"""


class StoreBusy(StoreUnavailable):
    """{store} was locked by another process for more than {seconds:g} s; is one of its processes stopped or hung?"""


class StoreFull(StoreUnavailable):
    """{store} cannot take more: {problem}. Make room there; nothing was lost."""


class StoreReadOnly(StoreError):
    """{store} cannot be written: {problem}. Give this user write access to the file and its folder."""


class StoreDenied(StoreError):
    """{store} does not let this user in, or not do that: {problem}. Correct the user, the password or the user's rights."""


class NotOurStore(StoreError):
    """{store} is not a broker-profiles store: {problem}. Name another file."""

    exit_status = 2


class NoDeadLetters(BrokerProfilesError):
    """The profile {profile!r} keeps no dead letters that can be listed; `broker-profiles list` shows which do (DEL-5)."""


class NoSuchDeadLetter(BrokerProfilesError):
    """No dead letter has the id {ids}, and nothing was done; `broker-profiles dead list` shows those there are."""

    exit_status = 2


class QueueDiffers(BrokerProfilesError):
    """The queue {queue!r} exists on RabbitMQ with other arguments ({problem}). Let it run empty and delete it (`rabbitmqctl delete_queue`), or give this application another queue (task_default_queue)."""


class AlreadySent(BrokerProfilesError):
    """Another process has sent this already, so it is not sent again."""


class Unroutable(BrokerProfilesError):
    """No queue is bound to the exchange {exchange!r} with the routing key {routing_key!r}, so the message was not sent."""
