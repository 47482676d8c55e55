"""What a case gets: a profile, a ledger, workers, clients and the server, all its own for its length."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from broker_profiles.comparison.account import Account, account
from broker_profiles.comparison.client import Client, ClientError, ClientHung, Sent
from broker_profiles.comparison.clock import remove_shared_memory
from broker_profiles.comparison.column import Host, file_variables
from broker_profiles.comparison.idle import Idle
from broker_profiles.comparison.ledger import VARIABLE, Ledger
from broker_profiles.comparison.leftovers import remove_leftovers
from broker_profiles.comparison.pressure import Patience
from broker_profiles.comparison.processes import CELERY, Process
from broker_profiles.comparison.scenario import NotApplicable, PromiseBroken, TooLate
from broker_profiles.comparison.service import FileService, NetworkService, Service
from broker_profiles.comparison.variables import (
    KEYS_VARIABLE,
    PREFIX_VARIABLE,
    SETTINGS_VARIABLE,
    TRACES_VARIABLE,
)
from broker_profiles.comparison.workers import Workers
from broker_profiles.errors import NoDeadLetters
from broker_profiles.profile import Mode, Profile
from broker_profiles.runtime.dead_letter import DeadLetter

T = TypeVar("T")

_POLL_SECONDS = 0.05

#: How long a call that sends a task may take before it is said to hang, in seconds.
_HANGS = 15.0


class Stage:
    """The surroundings of one case; a context manager that ends and heals everything it gave.

    `cancelled` is asked while the case waits; where it is true the case ends with `KeyboardInterrupt`.
    `direct` leads its processes to the servers without a link between, for measurements.
    """

    def __init__(
        self,
        host: Host,
        folder: Path,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        direct: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.profile: Profile = host.column.profile
        self.folder = folder
        self.facts: dict[str, Any] = {}
        #: Fact -> what was promised of it, in seconds.
        self.bounds: dict[str, float] = {}
        self.ledger = Ledger(folder / "ledger")
        self.prefix = f"bp-{secrets.token_hex(4)}"
        self._host = host
        self._cancelled = cancelled
        self._ending = False
        self._clients: list[Client] = []
        self._commands: list[Process] = []
        self.environ: dict[str, str] = {
            **file_variables(folder),
            **host.variables(direct=direct),
            VARIABLE: str(self.ledger.folder),
            PREFIX_VARIABLE: self.prefix,
        }
        if not host.owned:
            self.environ[TRACES_VARIABLE] = str(self.ledger.folder)
        if keys := host.keys(self.prefix):
            self.environ[KEYS_VARIABLE] = keys
        self._at_first = dict(self.environ)
        self.workers = Workers(self.environ, folder, self.ledger, self.wait)
        self.client = self.another_client()
        #: The broker's server, and the result store's: what can be done to them.
        self.server: Service = self._service(host.broker, host.broker_link)
        # Where the broker carries the results itself, or both are one file or one address.
        together = self.profile.results.only_over is not None or host.results_link is host.broker_link
        self.results: Service = self.server if together else self._service(host.results, host.results_link)

    # What a case says

    def require(self, truth: object, otherwise: str) -> None:
        """Raise `PromiseBroken` with a sentence unless something is true."""
        if not truth:
            raise PromiseBroken(otherwise)

    def in_time(self, name: str, seconds: float, bound: float) -> None:
        """Note a measured time and raise `TooLate` where it is above its bound, both in seconds."""
        self.facts[name] = round(seconds, 3)
        self.bounds[name] = bound
        if seconds > bound:
            raise TooLate(f"{name}: {seconds:.1f} s, and {bound:g} s are promised")

    def wait(self, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        """Return the first true value of a condition. Raises `TooLate` where there is none in time.

        An overloaded machine gets more time; what is promised in seconds is measured (`in_time`).
        """
        patience = Patience(seconds)
        while True:
            value = condition()
            if value:
                return value
            self.pause(0)
            if patience.over():
                raise TooLate(f"not within {seconds:g} s: {what}")
            time.sleep(_POLL_SECONDS)

    def pause(self, seconds: float) -> None:
        """Let time pass: for what must not happen in it, or for a load to go on; never for readiness."""
        deadline = time.monotonic() + seconds
        while True:
            if self._cancelled():
                raise KeyboardInterrupt
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))

    def _is_cancelled(self) -> bool:
        # What a case has left somewhere is removed all the same.
        return not self._ending and self._cancelled()

    def account(self) -> Account:
        """Return what has become of every task so far."""
        return account(self.ledger.events())

    def wait_for(self, ids: Any, seconds: float, *, kind: Any = "finish", what: str = "") -> None:
        """Return once each of these ids has an event of a kind. Raises `PromiseBroken` for those without.

        In time or not at all: what is still missing after `seconds` counts as lost.
        """
        wanted = set(ids)
        with contextlib.suppress(TooLate):
            self.wait(lambda: wanted <= self.ledger.ids(kind), seconds, what)
            return
        missing = wanted - self.ledger.ids(kind)
        if missing:
            text = what or f"have no {kind} in the ledger"
            shown = ", ".join(sorted(missing)[:3])
            raise PromiseBroken(
                f"{len(missing):,} of {len(wanted):,} tasks {text} after {seconds:g} s: {shown}"
            )

    def wait_for_value(self, condition: Callable[[], T | None], seconds: float, otherwise: str) -> T:
        """Return the first true value of a condition. Raises `PromiseBroken` with a sentence for none."""
        try:
            return self.wait(condition, seconds, otherwise)
        except TooLate:
            raise PromiseBroken(f"{otherwise} within {seconds:g} s") from None

    def wait_until_idle(self, seconds: float) -> None:
        """Return once clients and workers do no more than wait for work. Raises `TooLate`.

        Raises `NotApplicable` where there is no network to see it by.
        """
        link = self.server.link
        self.wait(Idle(lambda: link.carried), seconds, "clients and workers are idle")

    def sends_again(self, seconds: float) -> Sent:
        """Send a task with the first client until that works, as after a fault, and return it.

        Raises `PromiseBroken` where it does not within so many seconds, or where a call hangs.
        """

        def sent() -> Sent | None:
            try:
                (answer,) = self.client.send("note", within=_HANGS)
            except ClientHung as hung:
                raise PromiseBroken(str(hung)) from None
            return None if answer.error else answer

        return self.wait_for_value(sent, seconds, "nothing could be sent again")

    def require_clean(self) -> None:
        """Raise `PromiseBroken` where a task was lost, ran again after it had finished, or was made up."""
        verdict = self.account()
        if not verdict.clean:
            raise PromiseBroken(verdict.summary())

    def dead_letter(self, id_: str) -> DeadLetter | None:
        """Return the dead letter of a task; none where there is none yet, or the profile keeps none.

        One that was found counts as set aside and not as lost.
        """
        try:
            letters = self.client.dead_letters()
        except ClientError as error:
            if error.kind == NoDeadLetters.__name__:
                return None
            raise
        found = next((letter for letter in letters if letter.task_id == id_), None)
        if found is not None and id_ not in self.ledger.ids("dead"):
            self.ledger.dead(id_, ": ".join(filter(None, (found.reason, found.detail))))
        return found

    def not_applicable(self, why: str) -> None:
        """End the case: it cannot be tried here. Raises `NotApplicable`."""
        raise NotApplicable(why)

    def needs_own_server(self, why: str) -> None:
        """Raise `NotApplicable` where a server was not started here: what the case does to it would stay."""
        if not self._host.owned:
            self.not_applicable(f"the server was not started here, and {why}")

    def fault(self, text: str) -> None:
        """Write a fault down, for the timeline."""
        self.ledger.note(text, fault=True)

    # What a case uses

    def another_client(self, environ: Mapping[str, str] | None = None) -> Client:
        """Return a client in a process of its own, started at its first call."""
        number = len(self._clients) + 1
        log = self.folder / f"client-{number}.log"
        client = Client({**self.environ, **(environ or {})}, log, self._is_cancelled)
        self._clients.append(client)
        return client

    def command(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start `celery -A ... ARGUMENTS` beside the workers, such as beat; it is ended with the case."""
        name = f"{arguments[0]}-{len(self._commands) + 1}"
        merged = {**self.environ, **(environ or {})}
        process = Process(name, [*CELERY, *arguments], merged, self.folder / f"{name}.log")
        self._commands.append(process)
        return process

    def configure(self, **environ: str) -> None:
        """Change the environment of every worker and client that has not started yet."""
        self.environ.update(environ)
        for client in self._clients:
            client.environ.update(environ)

    def shorten_timeouts(self, seconds: float) -> None:
        """Make whatever the broker gives a message away after as short as this, to try it in seconds.

        Raises `NotApplicable` where this broker has no such time.
        """
        option = self.profile.broker.redelivery_timeout
        if not option:
            self.not_applicable("a message is not given away by time here")
        if option.startswith("BROKER_PROFILE_"):
            self.configure(**{option: f"{seconds:g}"})
        elif option.startswith("broker_"):
            self.set(**{option: round(seconds)})
        else:
            self.set(broker_transport_options=dict.fromkeys(option.split(), seconds))
        self.facts["timeout shortened to"] = seconds

    def expire_results(self, seconds: int) -> None:
        """Let results expire after so many seconds, as a user of this profile would set it."""
        if self.profile.mode is Mode.STOCK:
            self.set(result_expires=seconds)
        else:
            self.configure(BROKER_PROFILE_RESULT_EXPIRES_SECONDS=str(seconds))

    def set(self, **settings: Any) -> None:
        """Change Celery settings of every worker and client that has not started yet."""
        given = json.loads(self.environ.get(SETTINGS_VARIABLE, "{}"))
        self.configure(**{SETTINGS_VARIABLE: json.dumps({**given, **settings})})

    @property
    def processes(self) -> Iterator[int]:
        """The processes that use the broker, without the server's own."""
        yield from (worker.pid for worker in self.workers if worker.alive)
        yield from (client.pid for client in self._clients if client.running)
        yield from (process.pid for process in self._commands if process.alive)

    def _service(self, server: Any, link: Any) -> Service:
        if server is None:
            return FileService(Path(self.environ["BROKER_PROFILE_EMBEDDED_PATH"]), self)
        return NetworkService(server, link, self)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending = True
        with contextlib.ExitStack() as ending:
            ending.callback(self.ledger.close)
            ending.callback(remove_shared_memory, [worker.pid for worker in self.workers])
            ending.callback(self._clean)
            for client in self._clients:
                ending.callback(client.kill)
            for process in self._commands:
                ending.callback(process.kill)
            ending.callback(self.workers.close)
            ending.callback(self.server.heal)
            ending.callback(self.results.heal)

    def _clean(self) -> None:
        self._host.heal()
        if not self._host.owned:
            prefixes = {client.environ[PREFIX_VARIABLE] for client in self._clients} | self.workers.prefixes
            remove_leftovers(self._host.column.name, prefixes, self._at_first, self.folder)
