"""SEC-1: who asks for TLS speaks to the server that was meant, and to no other."""

from __future__ import annotations

import contextlib
import ssl
import uuid
from collections.abc import Iterator

from celery import Celery

from broker_profiles.comparison.client import ClientError, ClientHung
from broker_profiles.comparison.scenario import PromiseBroken, TooLate, case
from broker_profiles.comparison.stage import Stage
from broker_profiles.comparison.tls import Authority, Front, front_before, secured_url
from broker_profiles.comparison.workers import WorkerEnded

GUARANTEE = "SEC-1"

_HERE = "127.0.0.1"

#: How long a client that is to be refused may take, in seconds, with all its attempts.
_REFUSAL = 60.0

#: How long a front may take to see that a client has refused it, in seconds: longer than a handshake.
_DECIDED = 30.0

#: Within this many seconds a worker that accepts what it should not would have done so.
_WATCHED = 4.0


def state_of(app: Celery, id_: str) -> str:
    """Return the state of a result."""
    return str(app.AsyncResult(id_).state)


@case("a broker whose certificate nobody vouches for is refused", quick=True)
def unknown_authority(stage: Stage) -> None:
    """Put TLS before the broker, with a certificate of an authority that is not known."""
    _require_refused(stage, Authority(stage.folder, "stranger").context(_HERE))


@case("a broker with the certificate of another host is refused")
def another_host(stage: Stage) -> None:
    """The authority is known, the name in the certificate is not that of the server."""
    known = Authority(stage.folder, "known")
    stage.configure(SSL_CERT_FILE=str(known.file))
    _require_refused(stage, known.context("elsewhere.example"))


@case("a result store whose certificate nobody vouches for is refused")
def results_of_unknown_authority(stage: Stage) -> None:
    """Put TLS before the result store alone, and ask it for a result."""
    context = Authority(stage.folder, "stranger").context(_HERE)
    with _fronts(stage, context, only="RESULT_") as fronts:
        said = "it does not ask"
        try:
            stage.client.call(state_of, str(uuid.uuid4()), within=10.0)
        except (ClientError, ClientHung) as error:
            said = str(error)
        _require_none_accepted(stage, fronts, "a client")
        _needs_a_connection(stage, fronts, said)


@case("with a certificate that is right, tasks and results travel over TLS")
def right_certificate(stage: Stage) -> None:
    """The authority is made known as to any program with OpenSSL: by SSL_CERT_FILE."""
    known = Authority(stage.folder, "known")
    stage.configure(SSL_CERT_FILE=str(known.file))
    with _fronts(stage, known.context(_HERE)) as fronts:
        sent = stage.client.send("note", 5, within=_REFUSAL)
        failed = [answer.error for answer in sent if answer.error is not None]
        stage.require(not failed, f"a client cannot send over TLS: {failed[:1]}")
        try:
            stage.workers.start()
        except (WorkerEnded, TooLate) as error:
            raise PromiseBroken(f"a worker cannot work over TLS: {error}") from None
        stage.wait_for([answer.id for answer in sent], 30)
        (added,) = stage.client.sent("add", 1, 20, 3)
        stage.require(stage.client.result(added) == ("SUCCESS", 23), "no result comes over TLS")
        stage.require(all(front.accepted for front in fronts), "something did not travel over TLS")
    stage.require_clean()


def _require_refused(stage: Stage, context: ssl.SSLContext) -> None:
    with _fronts(stage, context, only="") as fronts:
        (answer,) = stage.client.send("note", within=_REFUSAL)
        _require_none_accepted(stage, fronts, "a client")
        stage.require(answer.error is not None, "delay() returned, though the broker was not reached")
        _needs_a_connection(stage, fronts, str(answer.error))
        tried = sum(front.refused for front in fronts)
        worker = stage.workers.start(ready=False)
        stage.wait_for_value(
            lambda: sum(front.refused + front.accepted for front in fronts) > tried or not worker.alive,
            60,
            "the worker does not connect",
        )
        stage.pause(_WATCHED)
        _require_none_accepted(stage, fronts, "a worker")
        stage.require(worker.name not in stage.ledger.ids("ready"), "a worker consumes over another way")


def _require_none_accepted(stage: Stage, fronts: list[Front], who: str) -> None:
    stage.wait_for_value(
        lambda: all(front.decided() for front in fronts), _DECIDED, "a handshake does not end"
    )
    if any(front.accepted for front in fronts):
        raise PromiseBroken(f"{who} speaks to a server whose certificate does not verify")


def _needs_a_connection(stage: Stage, fronts: list[Front], said: str) -> None:
    """End the case where nobody was there to be refused. Raises `NotApplicable`."""
    if not any(front.refused for front in fronts):
        stage.not_applicable(f"a client does not connect to an address with TLS: {said}")


@contextlib.contextmanager
def _fronts(stage: Stage, context: ssl.SSLContext, *, only: str | None = None) -> Iterator[list[Front]]:
    """Put TLS before the servers: all, or those whose variable has no prefix, or `RESULT_`."""
    fronts = []
    with contextlib.ExitStack() as closing:
        for name in addresses(stage):
            if only is not None and name.startswith("RESULT_") != bool(only):
                continue
            url = stage.environ[name]
            front = closing.enter_context(front_before(url, context))
            stage.configure(**{name: secured_url(url, _HERE, front.port)})
            fronts.append(front)
        if not fronts:
            stage.not_applicable("there is no network to such a server")
        yield fronts


def addresses(stage: Stage) -> list[str]:
    """Return the variables that say where the servers are."""
    return [name for name in stage.environ if name.endswith("_URL")]
