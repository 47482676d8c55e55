"""The parent side of a client: asks a process to send tasks, and ends it where it hangs."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from broker_profiles.comparison import cleaning
from broker_profiles.comparison.pressure import Patience
from broker_profiles.comparison.processes import runs
from broker_profiles.comparison.scenario import TooLate
from broker_profiles.comparison.servers.guard import guard, kill_tree
from broker_profiles.comparison.variables import base_environment
from broker_profiles.errors import redact
from broker_profiles.runtime.dead_letter import DeadLetter

_MODULE = "broker_profiles.comparison.clientside"

#: How often, in seconds, who waits for an answer looks whether he still should.
_LOOK = 0.2

#: How much longer than the work itself an answer may take on a busy machine, in seconds.
_GRACE = 15.0


class ClientError(Exception):
    """A call in the client raised; `kind` is the name of the exception's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class ClientHung(TooLate):
    """A call in the client did not return in time; its process was ended."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of sending one task: `seconds` is how long the call took, `error` what it raised."""

    id: str
    seconds: float
    error: str | None = None


class Client:
    """A process that sends tasks on a profile. Started at the first call; a hung one is replaced."""

    def __init__(
        self, environ: Mapping[str, str], log: Path, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self.environ = dict(environ)
        self._log = log
        self._cancelled = cancelled
        self._process: subprocess.Popen[str] | None = None

    def send(
        self,
        task: str = "note",
        count: int = 1,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        within: float = 30.0,
        every: float = 0.0,
        **options: Any,
    ) -> list[Sent]:
        """Send a task so many times and return what came of each; `options` go to `apply_async`.

        Raises `ClientHung` where that takes longer than `within` seconds (and `count * every`).
        """
        request = (task, count, list(args), dict(kwargs or {}), options, every)
        answers = self._ask(f"{_MODULE}:send", request, within + count * every)
        return [Sent(*answer) for answer in answers]

    def sent(self, task: str = "note", count: int = 1, *args: Any, **options: Any) -> list[str]:
        """Send as `send` does and return the ids. Raises `ClientError` where the broker refused one."""
        answers = self.send(task, count, *args, **options)
        for answer in answers:
            if answer.error is not None:
                raise ClientError("Refused", answer.error)
        return [answer.id for answer in answers]

    @contextlib.contextmanager
    def sending(
        self, task: str = "note", *args: Any, every: float = 0.02, **options: Any
    ) -> Iterator[list[Sent]]:
        """Send a task every so many seconds for the length of the block; the list is filled at its end.

        It stays empty where the client is killed in the block; the ledger has what was sent. Nothing else
        can be asked of this client in the block. Raises `ClientHung`.
        """
        answers: list[Sent] = []
        self._write(f"{_MODULE}:stream", (task, list(args), options, every))
        try:
            yield answers
        except BaseException:
            self.kill()  # it would take the next question for the end of this one
            raise
        if not self.running:
            return
        self._line("")
        answers += [Sent(*answer) for answer in self._read(_GRACE)]

    def result(self, id_: str, within: float = 15.0) -> tuple[str, Any]:
        """Return the state and the value of a result, waited for that many seconds."""
        state, value = self._ask(f"{_MODULE}:result", (id_, within), within + _GRACE)
        return state, value

    def control(self, command: str, within: float = 2.0, **arguments: Any) -> list[dict[str, Any]]:
        """Broadcast a command of remote control and return the replies after `within` seconds."""
        replies: list[dict[str, Any]] = self._ask(
            f"{_MODULE}:control", (command, arguments, within), within + _GRACE
        )
        return replies or []

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters of this run's queue, the oldest hundred.

        Raises `ClientError`, of the kind `NoDeadLetters` where the profile keeps none.
        """
        letters = self._ask(f"{_MODULE}:dead_letters", (), _GRACE)
        return [
            DeadLetter(**{**letter, "died_at": datetime.fromisoformat(letter["died_at"])})
            for letter in letters
        ]

    def clean(self) -> None:
        """Remove the queues and the exchanges of this run from the broker. Raises `ClientError`."""
        self.call(cleaning.remove_queues, within=_GRACE)

    def call(self, function: Callable[..., Any], *args: Any, within: float = 30.0) -> Any:
        """Call a function of a module with the application and JSON arguments; return its JSON value.

        Raises `ClientError` for what it raised and `ClientHung` where it did not return in time.
        """
        return self._ask(f"{function.__module__}:{function.__qualname__}", args, within)

    @property
    def pid(self) -> int:
        """The process, started if need be."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and runs(self._process)

    def kill(self) -> None:
        """End the process at once; the next call starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        kill_tree(process.pid)
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        guard.drop("process", str(process.pid))

    def _ask(self, function: str, args: tuple[Any, ...], within: float) -> Any:
        self._write(function, args)
        return self._read(within)

    def _write(self, function: str, args: tuple[Any, ...]) -> None:
        self._line(json.dumps({"function": function, "args": args}))

    def _line(self, text: str) -> None:
        stream = self._running().stdin
        assert stream is not None
        try:
            stream.write(text + "\n")
            stream.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _read(self, within: float) -> Any:
        # The one that was asked: one that has ended meanwhile is not replaced before its end is told.
        process = self._process
        assert process is not None and process.stdout is not None
        line = self._line_of(process.stdout, within)
        if line is None:
            self.kill()
            raise ClientHung(f"the client hung: it did not return within {within:g} s")
        if not line.endswith("\n"):
            raise self._ended()
        try:
            answer = json.loads(line)
        except ValueError:
            self.kill()
            raise ClientError("Garbled", f"the client answered {line[:200]!r}") from None
        if "error" in answer:
            raise ClientError(*answer["error"])
        return answer["value"]

    def _line_of(self, stream: IO[str], within: float) -> str | None:
        """Return the next line, an empty one where the stream ended, none where there was none in time."""
        patience = Patience(within)
        while not patience.over():
            # One answer to one question: nothing waits unseen in the stream's buffer.
            if select.select([stream], [], [], min(within, _LOOK))[0]:
                return stream.readline()
            if self._cancelled():
                raise KeyboardInterrupt
        return None

    def _ended(self) -> ClientError:
        self.kill()
        return ClientError(
            "Ended", f"the client ended: {redact(self._log.read_text(errors='replace'))[-500:]}"
        )

    def _running(self) -> subprocess.Popen[str]:
        if not self.running:
            self.kill()  # what is left of one that a fault has ended
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", _MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**base_environment(), **self.environ},
                    start_new_session=True,  # Ctrl-C is the suite's alone
                )
            guard.add("process", str(self._process.pid))
        assert self._process is not None
        return self._process
