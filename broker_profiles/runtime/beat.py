"""Schedulers of which any number run: each due tick is sent once, and none waits for a beat that is gone.

What was last sent of an entry of the schedule, and when, is a mark in the broker's store. To send a tick is
a step of that mark from what it was due by: the store takes the step and the message together, or neither. So
it does not matter which beat is alive, nor how late a frozen one comes back; there is nobody to replace.

The beat that sent the last tick of an entry goes first, so that the others need not try in vain.
"""

from __future__ import annotations

import secrets
import sys
import time
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Self

from celery import beat
from celery.schedules import schedstate
from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware
from kombu.exceptions import OperationalError

from broker_profiles.errors import AlreadySent, ConfigurationError, StoreError, StoreUnavailable, redact
from broker_profiles.transports import leased
from broker_profiles.transports.once import Once, sending
from broker_profiles.transports.store import Step, Store

logger = get_logger("celery.beat")

#: What Celery puts into the headers of every task that beat sends.
_HEADER = "celery_beat_task"

#: How long a tick is left to the beat that sent the one before, in seconds.
_AFTER_THE_FIRST = 0.1

#: How long to wait before a broker that is away is asked again, in seconds.
_PAUSE = 1.0

#: How often a beat says which entries it has, and how long the state of others is kept, in seconds.
_KEEPS_EVERY, _KEPT_FOR = 180.0, 3 * 86_400.0

#: The longest name of a mark that every store takes.
_LONGEST = 255

_AWAY = (OperationalError, StoreUnavailable)

#: What a beat outlives, and asks again: the next time it may be another.
_FAILED = (OperationalError, StoreError)


class State(NamedTuple):
    """What the mark of an entry says: its last run, how many there were, the beat that sent it."""

    last_run_at: datetime
    total_run_count: int
    beat: str

    @classmethod
    def of(cls, entry: Any, beat: str) -> Self:
        """Return the state of an entry as a beat sees it."""
        last_run_at: datetime = maybe_make_aware(entry.last_run_at)
        return cls(last_run_at.astimezone(UTC), entry.total_run_count, beat)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a mark says."""
        last_run_at, count, beat = text.split()
        return cls(datetime.fromisoformat(last_run_at), int(count), beat)

    def __str__(self) -> str:
        return f"{self.last_run_at.isoformat()} {self.total_run_count} {self.beat}"


class _NotSent(Exception):
    """The broker is away, so that a tick is still to be sent."""


class Shared(beat.Scheduler):  # type: ignore[misc]
    """What makes any scheduler of Celery's one of many; it comes before that in the bases of a class.

    Raises `ConfigurationError` where the broker has no leased transport.
    """

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self.beat = secrets.token_hex(4)
        #: Name of an entry -> what its mark said when it was last read, or when its turn was left to another.
        self._seen: dict[str, str] = {}
        self._left: dict[str, str] = {}
        self._reserved: Any = None
        self._kept_at = float("-inf")
        self._ticking = False
        super().__init__(app, *args, **kwargs)
        if not issubclass(self.connection.get_transport_cls(), leased.Transport):
            problem = f"{type(self).__name__} needs a broker over the leased transport; remove beat_scheduler"
            raise ConfigurationError(problem=problem)

    # -- going round ------------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due; return the seconds until the next. What could not be sent stays due."""
        self._ticking = True
        try:
            store = self._store
            self._begin(store)
            self._keep(store)
            return super().tick(*args, **kwargs)
        except (*_FAILED, _NotSent) as error:
            logger.error("beat: %s. Trying again in %g s.", redact(error).rstrip("."), _PAUSE)
            # An entry may be missing there.
            self._heap = None
            return _PAUSE
        finally:
            self._ticking = False

    def close(self) -> None:
        """Save and disconnect; inside a tick, where a signal ends it, only once that has ended."""
        if self._ticking:
            self.sync()
        else:
            super().close()

    @property
    def _store(self) -> Store:
        """The store, connected to. Raises `StoreUnavailable` and `OperationalError`."""
        _ = self.producer
        store: Store = self.connection.transport.store
        return store

    def _key(self, name: str) -> str:
        """Return the name of an entry's mark: another application has entries of its own."""
        key = f"{self.app.main}/{self.app.conf.task_default_queue}/{name}"
        if len(key) <= _LONGEST:
            return key
        return f"{key[: _LONGEST - 33]}/{blake2b(key.encode(), digest_size=16).hexdigest()}"

    def _begin(self, store: Store) -> None:
        """Take over the state of entries that are new to this beat, or give them one."""
        new = {self._key(name): entry for name, entry in self.schedule.items() if name not in self._seen}
        if not new:
            return
        marks = store.marks(list(new))
        for key, entry in new.items():
            self._note(entry, marks.get(key) or self._first(store, key, entry))
        self._heap = None

    def _first(self, store: Store, key: str, entry: Any) -> str:
        """Return what the new mark of an entry says, which another beat may have made just now."""
        step = Step(key, None, str(State.of(entry, self.beat)))
        return step.value if store.advance(step) else store.marks([key])[key]

    def _keep(self, store: Store) -> None:
        """Say which entries there are, so that the state of one that was removed does not stay for ever."""
        now = time.monotonic()
        if now - self._kept_at >= _KEEPS_EVERY:
            store.keep_marks([self._key(name) for name in self.schedule], _KEPT_FOR)
            self._kept_at = now

    # -- what is due ------------------------------------------------------------------------------

    def is_due(self, entry: Any) -> Any:
        """Return whether to send an entry now, by what all beats have sent of it; else when to look again."""
        found = super().is_due(entry)
        if not found[0]:
            return found
        self._look(entry)
        found = super().is_due(entry)
        seen = self._seen[entry.name]
        if not found[0] or State.read(seen).beat == self.beat or self._left.get(entry.name) == seen:
            return found
        self._left[entry.name] = seen
        return schedstate(False, _AFTER_THE_FIRST)

    def _is_due_failed(self, entry: Any) -> Any:
        """Let `tick` see that the broker failed: Celery takes it for a broken schedule, which can wait."""
        error = sys.exception()
        if isinstance(error, _FAILED):
            raise error
        return super()._is_due_failed(entry)

    def _look(self, entry: Any) -> None:
        """Read the mark of an entry; one that nobody kept begins anew."""
        store, key = self._store, self._key(entry.name)
        text = store.marks([key]).get(key)
        if text is None:
            self.begin_anew(entry)
            text = self._first(store, key, entry)
        self._note(entry, text)

    def _note(self, entry: Any, text: str) -> None:
        self._seen[entry.name] = text
        state = State.read(text)
        if self.takes(entry, state):
            naive = entry.last_run_at.tzinfo is None
            last_run_at = state.last_run_at.astimezone(self.app.timezone)
            self._set(
                entry, state.last_run_at.replace(tzinfo=None) if naive else last_run_at, state.total_run_count
            )

    def begin_anew(self, entry: Any) -> None:
        """Give an entry a last run where nobody knows of one any more: no tick rather than an old one."""
        self._set(entry, entry.default_now(), entry.total_run_count)

    def takes(self, entry: Any, state: State) -> bool:
        """Return whether the shared state counts, and not what the entry says itself."""
        return True

    def _set(self, entry: Any, last_run_at: datetime, total_run_count: int) -> None:
        for each in filter(None, (entry, getattr(entry, "model", None))):
            each.last_run_at, each.total_run_count = last_run_at, total_run_count

    # -- sending ----------------------------------------------------------------------------------

    def reserve(self, entry: Any) -> Any:
        """Return the entry as it is once it was sent."""
        self._reserved = super().reserve(entry)
        return self._reserved

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a tick, unless another beat has sent it. Raises `_NotSent`."""
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        sent = self._reserved
        step = Step(self._key(entry.name), self._seen[entry.name], str(State.of(sent, self.beat)))
        once = Once(step, _HEADER, self.connection.hostname)
        try:
            with sending(once):
                result = self.apply_async(entry, producer=producer, advance=False)
            logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))
        except beat.SchedulingError as error:
            reason = error.__cause__ or error.__context__
            if isinstance(reason, _AWAY):
                self._put_back(entry)
                raise _NotSent(f"{entry.name} is still to be sent: {reason}") from error
            if isinstance(reason, AlreadySent):
                logger.debug("%s was sent by another beat.", entry.name)
            else:
                logger.error("Message Error: %s", error, exc_info=True)
        self._settle(entry, sent, once)

    def _settle(self, entry: Any, sent: Any, once: Once) -> None:
        """Note what the mark says now; what was not sent to this broker, or cannot be sent, is done too."""
        try:
            if once.taken or self._store.advance(once.step):
                self._seen[entry.name] = once.step.value
            else:
                self._look(sent)
        except _FAILED:
            self._put_back(entry)
            raise

    def _put_back(self, entry: Any) -> None:
        """Let an entry be due again, as it was."""
        self._set(entry, entry.last_run_at, entry.total_run_count)
        self.schedule[entry.name] = entry


class Scheduler(Shared):
    """Celery's scheduler of `beat_schedule`, with its state in the broker's store instead of a file."""

    def setup_schedule(self) -> None:
        """Make the entries; no broker is asked before the first tick."""
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.schedule)

    @property
    def info(self) -> str:
        """Where the state is, for the banner of beat."""
        return f"    . state -> {self.connection.as_uri()}"
