"""Celery's results in PostgreSQL or MySQL, which expire by themselves.

When a result was stored is written by the server's clock, in UTC, whatever its state. Each statement that
reads leaves out what has expired; whoever stores results removes it, now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import states
from celery.backends import database
from celery.backends.database import session_cleanup
from kombu.utils.encoding import ensure_bytes
from sqlalchemy import ColumnElement, DateTime, Delete, Update, delete, event, false, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from broker_profiles.results.chords import SaysUnfinished
from broker_profiles.results.kept import Kept, Page, Wanted, numbers, page_of, text
from broker_profiles.results.removal import BATCH, Removal, remove_all
from broker_profiles.results.waiting import BoundedWait


class Ago(FunctionElement[datetime]):
    """So many seconds ago by the server's clock, in UTC; the same within a statement."""

    type = DateTime()
    name = "ago"
    inherit_cache = True


@compiles(Ago, "postgresql")
def _on_postgresql(element: Ago, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(timezone('utc', now()) - make_interval(secs => {seconds}))"


@compiles(Ago, "mysql", "mariadb")
def _on_mysql(element: Ago, compiler: SQLCompiler, **options: Any) -> str:
    # Whole seconds, as in the column: a result is kept for up to a second longer, and never less.
    return f"(UTC_TIMESTAMP() - INTERVAL {compiler.process(element.clauses, **options)} SECOND)"


class SQLBackend(SaysUnfinished, BoundedWait, database.DatabaseBackend):  # type: ignore[misc]
    """A result backend whose results expire when it is their time, with nothing that runs on a schedule."""

    supports_autoexpire = True

    #: Seconds that a result is kept; 0 is for ever.
    _kept = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept: timedelta | None = self.expires
        self._kept = kept.total_seconds() if kept else 0.0
        self._removal = Removal(self._kept)

    # Celery's sessions take hooks: the one way to change every statement of its own and to repeat none.

    def ResultSession(self, session_manager: Any = None) -> Session:  # noqa: N802
        """Return a session that does not see what has expired."""
        session: Session = super().ResultSession(session_manager)
        event.listen(session, "before_flush", _note_time)
        if self._kept:
            event.listen(session, "do_orm_execute", self._leave_out_expired)
        return session

    def _leave_out_expired(self, execution: ORMExecuteState) -> None:
        if not execution.is_select or execution.is_column_load:
            return
        for table in (self.task_cls, self.taskset_cls):
            living = or_(table.date_done.is_(None), table.date_done >= Ago(self._kept))
            execution.statement = execution.statement.options(with_loader_criteria(table, living))

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_task_meta_for(task_id)
        if meta["status"] not in states.READY_STATES:
            meta["date_done"] = None  # the column says when the state was stored
        return meta

    # -- storing ----------------------------------------------------------------------------------

    def _store_result(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        store = partial(super()._store_result, task_id, *args, **kwargs)
        try:
            store()
        except IntegrityError:
            # A row that is not seen has expired, or was stored just now by another run of the task.
            expired = self.task_cls.date_done < Ago(self._kept) if self._kept else false()
            self._execute(delete(self.task_cls).where(self.task_cls.task_id == task_id, expired))
            store()
        self._removal.after_storing(self._remove_expired)

    def _save_group(self, group_id: str, result: Any) -> Any:
        table = self.taskset_cls
        try:
            super()._save_group(group_id, result)
        except IntegrityError:  # it was saved before, and perhaps has expired
            stored = ensure_bytes(self.encode(self.prepare_value(result)))
            values = {"result": stored, "date_done": Ago(0)}
            self._execute(update(table).where(table.taskset_id == group_id).values(values))
        self._removal.after_storing(self._remove_expired)
        return result

    def _execute(self, statement: Delete | Update) -> None:
        session = super().ResultSession()
        with session_cleanup(session):
            session.execute(statement, execution_options=_UNSYNCHRONISED)
            session.commit()

    # -- removing ---------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Remove everything that has expired; `celery beat` may call it, and need not."""
        self._ensure_retryable(self.purge, everything=False)

    def purge(self, *, everything: bool) -> int:
        """Remove what has expired, or all results and groups; return how many that were."""
        if not (everything or self._kept):
            return 0
        tables = (self.task_cls, self.taskset_cls)
        return sum(remove_all(partial(self._remove, table, everything=everything)) for table in tables)

    def _remove_expired(self) -> int:
        """Remove some of the results and groups that have expired; return how many of either."""
        return max(self._remove(self.task_cls), self._remove(self.taskset_cls))

    def _remove(self, table: Any, *, everything: bool = False) -> int:
        session = super().ResultSession()
        chosen = select(table.id).order_by(table.date_done).limit(BATCH)
        if not everything:
            chosen = chosen.where(table.date_done < Ago(self._kept))
        with session_cleanup(session):
            # InnoDB would lock the gaps between rows too, and so make others wait who insert.
            session.connection(execution_options={"isolation_level": "READ COMMITTED"})
            # What another process removes is not waited for.
            ids = session.scalars(chosen.with_for_update(skip_locked=True)).all()
            if ids:
                session.execute(delete(table).where(table.id.in_(ids)), execution_options=_UNSYNCHRONISED)
            session.commit()
        return len(ids)

    # -- what is kept -----------------------------------------------------------------------------

    def key_of(self, task_id: str) -> str:
        """Return the table and the id of a task's result."""
        return f"{self.task_cls.__table__.name}, task_id = {task_id}"

    def kept(self, task_id: str) -> Kept | None:
        """Return what is stored of a task."""
        rows = self._rows(self.task_cls.task_id == task_id)
        return self._as_kept(*rows[0]) if rows else None

    def page(self, wanted: Wanted) -> Page:
        """Return the results that are wanted, the oldest first; `after` is the last row of a page."""
        return page_of(self._entries(wanted), wanted)

    def _entries(self, wanted: Wanted) -> Iterator[tuple[str, Kept | None]]:
        after = numbers(wanted.after)[0]
        only = [self.task_cls.status == wanted.state] if wanted.state else []
        while rows := self._rows(self.task_cls.id > after, *only):
            yield from ((str(row.id), self._as_kept(row, now)) for row, now in rows)
            after = rows[-1][0].id

    def _rows(self, *conditions: ColumnElement[bool]) -> list[Any]:
        session = self.ResultSession()
        with session_cleanup(session):
            chosen = select(self.task_cls, Ago(0)).where(*conditions)
            return list(session.execute(chosen.order_by(self.task_cls.id).limit(BATCH)))

    def _as_kept(self, row: Any, now: datetime) -> Kept:
        age = (now - row.date_done).total_seconds() if row.date_done else None
        return Kept(
            id=row.task_id,
            key=self.key_of(row.task_id),
            state=row.status,
            value=text(row.result),
            traceback=row.traceback,
            task=getattr(row, "name", None),
            age=age,
            ttl=self._kept - age if self._kept and age is not None else None,
        )


_UNSYNCHRONISED = {"synchronize_session": False}


def _note_time(session: Session, *_rest: Any) -> None:
    """Let the server write down when a row is stored."""
    for row in (*session.new, *session.dirty):
        row.date_done = Ago(0)
