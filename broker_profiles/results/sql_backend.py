"""Celery's results in PostgreSQL or MySQL, which expire by themselves.

When a result was stored is written by the server's clock, in UTC, whatever its state. Each statement that
reads leaves out what has expired; whoever stores results removes it, now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import states
from celery.backends import database
from celery.backends.database import session_cleanup
from sqlalchemy import ColumnElement, DateTime, delete, event, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from broker_profiles.results.removal import BATCH, Removal, remove_all


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


class SQLBackend(database.DatabaseBackend):  # type: ignore[misc]
    """A result backend whose results expire when it is their time, with nothing that runs on a schedule."""

    supports_autoexpire = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept: timedelta | None = self.expires
        #: Seconds that a result is kept; 0 is for ever.
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
        in_the_way = self.task_cls.task_id == task_id
        if self._kept:
            in_the_way &= self.task_cls.date_done < Ago(self._kept)
        self._insert(store, self.task_cls, in_the_way)
        self._removal.after_storing(self._remove_expired)

    def _save_group(self, group_id: str, result: Any) -> Any:
        save = partial(super()._save_group, group_id, result)
        self._insert(save, self.taskset_cls, self.taskset_cls.taskset_id == group_id)
        self._removal.after_storing(self._remove_expired)
        return result

    def _insert(self, insert: Callable[[], Any], table: Any, in_the_way: ColumnElement[bool]) -> None:
        """Insert a row; one of its id gives way that has expired, and is not seen, or is a saved group."""
        try:
            insert()
        except IntegrityError:
            session = super().ResultSession()
            with session_cleanup(session):
                session.execute(delete(table).where(in_the_way), execution_options=_UNSYNCHRONISED)
                session.commit()
            insert()

    # -- removing ---------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Remove everything that has expired; `celery beat` may call it, and need not."""
        if self._kept:
            remove_all(partial(self._ensure_retryable, self._remove_expired))

    def _remove_expired(self) -> int:
        """Remove some of the results and groups that have expired; return how many of either."""
        session = super().ResultSession()
        removed = 0
        with session_cleanup(session):
            # InnoDB would lock the gaps between rows too, and so make others wait who insert.
            session.connection(execution_options={"isolation_level": "READ COMMITTED"})
            for table in (self.task_cls, self.taskset_cls):
                expired = (
                    select(table.id)
                    .where(table.date_done < Ago(self._kept))
                    .order_by(table.date_done)
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)  # what another process removes is not waited for
                )
                ids = session.scalars(expired).all()
                if ids:
                    gone = delete(table).where(table.id.in_(ids))
                    session.execute(gone, execution_options=_UNSYNCHRONISED)
                removed = max(removed, len(ids))
            session.commit()
        return removed


_UNSYNCHRONISED = {"synchronize_session": False}


def _note_time(session: Session, *_rest: Any) -> None:
    """Let the server write down when a row is stored."""
    for row in (*session.new, *session.dirty):
        row.date_done = Ago(0)
