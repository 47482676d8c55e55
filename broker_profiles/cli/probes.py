"""Looking whether a broker, a result store and the workers answer, in bounded time and in plain words."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from celery import Celery, uuid
from celery.backends.base import DisabledBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError

from broker_profiles.cli.effective import effective_settings
from broker_profiles.errors import BrokerProfilesError, redact
from broker_profiles.profile import Profile
from broker_profiles.settings import Environment

#: Seconds that each of the four steps may take: together they stay below 15.
_STEP = 3.5

#: Seconds in which workers may answer a ping; all of it is waited, to count them.
_PING = 1.0

#: A task that every Celery worker knows: it returns one of its arguments.
_TASK = "celery.accumulate"

#: What systems say, and what it means. The first that fits is the cause.
_MEANINGS = (
    (r"vhost .*not found|access to vhost|NOT_ALLOWED", "there is no such virtual host for this user"),
    (
        r"ACCESS_REFUSED|WRONGPASS|NOAUTH|AUTH failed|password authentication failed|no password supplied"
        r"|Access denied for user(?!.* to database)|Authentication ?failed|invalid username-password",
        "the user name or the password is wrong",
    ),
    (
        r"database .* does not exist|Unknown database|DB index is out of range|Access denied for user",
        "there is no such database for this user",
    ),
    (r"permission denied|NOPERM|not authorized", "this user lacks a permission"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its certificate cannot be verified"),
    (r"refused", "nothing listens there, so the server does not run or is elsewhere"),
    (
        r"Name or service not known|name resolution|getaddrinfo|nodename nor servname|resolve host",
        "the name of the host is not known",
    ),
    (r"timed ?out|Timeout", "it does not answer"),
)


class Unusable(BrokerProfilesError):
    """The {part} at {address} ({source}) cannot be used: {problem}."""


class NotDone(BrokerProfilesError):
    """{workers} worker(s) answer, but none ran a task within {seconds:g} s: busy, or not on {queue!r}."""


class NoAnswer(Exception):
    """Something took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"timed out after {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and is as it should be."""

    name: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Place:
    part: str
    address: str
    source: str


def probe(app: Celery, profile: Profile, environment: Environment) -> Iterator[Finding]:
    """Look at the broker, the result store, the workers and one task; yield what is well, step by step.

    Raises `BrokerProfilesError` at the first that is not.
    """
    said_by = {setting.name: setting.source for setting in effective_settings(profile, environment, app)}
    broker = _broker(app, profile, environment)
    results = _Place("result store", redact(app.conf.result_backend), said_by["result_backend"])
    workers: list[str] = []
    yield _step("broker", broker, lambda: _connect(app))
    yield _step("results", results, lambda: _store_and_forget(app))
    yield _step("workers", broker, lambda: _ping(app, workers))
    if workers:
        yield _step("task", broker, lambda: _run_a_task(app, workers))


def _step(name: str, place: _Place, action: Callable[[], str]) -> Finding:
    started = time.monotonic()
    try:
        detail = _within(_STEP, action) or place.address
    except Exception as error:
        raise _explained(error, place) from error
    return Finding(name, detail, round(time.monotonic() - started, 3))


@contextlib.contextmanager
def explaining(app: Celery, profile: Profile, environment: Environment) -> Iterator[None]:
    """Say in plain words of a broker that fails in the block why it does. Raises `BrokerProfilesError`."""
    connection = app.connection_for_write()
    try:
        yield
    except (*connection.connection_errors, *connection.channel_errors) as error:
        raise _explained(error, _broker(app, profile, environment)) from error


def _broker(app: Celery, profile: Profile, environment: Environment) -> _Place:
    said_by = {setting.name: setting.source for setting in effective_settings(profile, environment, app)}
    return _Place("broker", redact(app.conf.broker_url), said_by["broker_url"])


def _explained(error: Exception, place: _Place) -> BrokerProfilesError:
    # kombu wraps what a transport raises; ours says more than its wrapping.
    for link in _chain(error):
        if isinstance(link, BrokerProfilesError):
            return link
    return Unusable(**asdict(place), problem=meaning(error))


def _within(seconds: float, action: Callable[[], str]) -> str:
    """Return what the action returns. Raises `NoAnswer` if that takes longer, and lets it be.

    No driver bounds everything, and a thread of a pool would be waited for at the end of the process.
    """
    returned: list[str] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            returned.append(action())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise NoAnswer(seconds)
    return returned[0]


def meaning(error: BaseException) -> str:
    """Return in plain words why something could not be reached, or what the driver said about it."""
    chain = _chain(error)
    said = " ".join(f"{type(link).__name__}: {link}" for link in chain)
    for pattern, words in _MEANINGS:
        if re.search(pattern, said, re.DOTALL | re.IGNORECASE):
            return words
    return f"{type(chain[-1]).__name__}: {' '.join(str(chain[-1]).split())}"


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


# -- steps --------------------------------------------------------------------------------------------


def _connect(app: Celery) -> str:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        # Some transports connect when they are first used, so use it: this asks and changes nothing.
        # That there is no such queue is an answer too: it comes with its first worker or task.
        with contextlib.suppress(*connection.channel_errors):
            connection.default_channel.queue_declare(queue=app.conf.task_default_queue, passive=True)
    return ""


def _store_and_forget(app: Celery) -> str:
    """Write a result, read it, remove it; what is said instead where there is no place to do so."""
    if app.conf.result_backend.startswith("rpc"):
        return "sent to the client over the broker"
    if app.conf.result_backend.startswith("db+"):
        _connect_to_database(app)
    if isinstance(app.backend, DisabledBackend):
        return "off: tasks are sent and forgotten"
    # A worker tries for minutes, and should; this is to say what is wrong now.
    app.backend.always_retry = False
    id_ = uuid()
    app.backend.store_result(id_, "check", "SUCCESS")
    app.backend.get_task_meta(id_, cache=False)
    app.backend.forget(id_)
    return ""


def _connect_to_database(app: Celery) -> None:
    """Connect once: Celery's backend tries ten times, ever more slowly, as soon as it is made."""
    from celery.backends.database.session import SessionManager

    url = app.conf.result_backend.removeprefix("db+")
    options = app.conf.database_engine_options or {}
    SessionManager().get_engine(url, **options).connect().close()


def _ping(app: Celery, workers: list[str]) -> str:
    workers += sorted(app.control.inspect(timeout=_PING).ping() or {})
    return ", ".join(workers) or "no worker answers"


def _run_a_task(app: Celery, workers: list[str]) -> str:
    # If no worker takes it, it must not lie there for ever.
    sent = app.send_task(_TASK, args=(True,), kwargs={"index": 0}, expires=10, priority=9)
    if isinstance(app.backend, DisabledBackend):
        return "sent; without a result store nobody can say more"
    wait = _STEP - 0.5
    try:
        sent.get(timeout=wait)
    except CeleryTimeoutError:
        queue = app.conf.task_default_queue
        raise NotDone(workers=len(workers), queue=queue, seconds=wait) from None
    with contextlib.suppress(NotImplementedError):  # what the client took over rpc is gone already
        sent.forget()
    return f"{_TASK} ran"
