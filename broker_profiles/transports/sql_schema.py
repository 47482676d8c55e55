"""The tables of the SQL stores, and the migrations that make and change them.

Migrations run by themselves when a connection finds an older version, or none, in the version table, or
finds that a table is missing. A lock of the database lets one process at a time do so, and the others find
the work done.

Which columns are NULL matters, for what is NULL in all rows but a few makes a small index: `due` is set
while a message is delayed, `consumer` while it is leased. `place` is 9 minus the priority, so that one
ascending index gives the order on every system. An id is never used twice, so that an old receipt
cannot fit a new message. Times are milliseconds since the epoch, on the server's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.pool import NullPool

PREFIX = "broker_profiles_"
QUEUES, MESSAGES, CONSUMERS = f"{PREFIX}queues", f"{PREFIX}messages", f"{PREFIX}consumers"
BINDINGS, DEAD, MARKS = f"{PREFIX}bindings", f"{PREFIX}dead", f"{PREFIX}marks"
VERSIONS = f"{PREFIX}schema"

READY, DELAYED, LEASED = 0, 1, 2

#: The longest name of a queue, an exchange or a routing key: three of them have to fit into an index key.
LONGEST_NAME = 255

# "BrPr", as a number that no other program is likely to lock.
_LOCK = 0x42725072


_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_default_charset": "utf8mb4"}


class NewerSchema(Exception):
    """The tables were made by a newer version of this package."""


def _name(connection: Connection) -> String:
    """Return the type of a name as this server has to be told it."""
    dialect = connection.dialect
    # Binary, and without padding: "q" and "q " are two queues, as everywhere else.
    collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return String(LONGEST_NAME, collation=collation if dialect.name == "mysql" else None)


def _tables(connection: Connection) -> MetaData:
    """Return the tables of version 1 as this server has to be told them."""
    on_mysql = connection.dialect.name == "mysql"
    name = _name(connection)
    long_text = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
    body = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
    options = _OPTIONS
    metadata = MetaData()

    def id_column() -> Column[int]:
        return Column("id", BigInteger, Identity(always=True), primary_key=True)

    Table(
        QUEUES,
        metadata,
        id_column(),
        Column("name", name, nullable=False, unique=True),
        Column("expires", BigInteger),
        Column("message_ttl", BigInteger),
        Column("used_at", BigInteger, nullable=False),
        **options,
    )
    messages = Table(
        MESSAGES,
        metadata,
        id_column(),
        Column("queue", BigInteger, nullable=False),
        Column("due", BigInteger),
        Column("expires", BigInteger),
        Column("token", BigInteger, nullable=False, server_default=text("0")),
        Column("deliveries", BigInteger, nullable=False, server_default=text("0")),
        Column("place", SmallInteger, nullable=False),
        Column("state", SmallInteger, nullable=False),
        Column("consumer", name),
        Column("body", body, nullable=False),
        **options,
    )
    columns = messages.c
    if on_mysql:
        Index(f"{PREFIX}ready", columns.queue, columns.state, columns.place, columns.id)
    else:
        ready = columns.state == text(str(READY))
        Index(f"{PREFIX}ready", columns.queue, columns.place, columns.id, postgresql_where=ready)
    for index, column in (("due", columns.due), ("leased", columns.consumer), ("expiring", columns.expires)):
        Index(PREFIX + index, column, postgresql_where=column.is_not(None))
    Table(
        CONSUMERS,
        metadata,
        Column("name", name, primary_key=True),
        Column("until", BigInteger, nullable=False),
        **options,
    )
    Table(
        BINDINGS,
        metadata,
        Column("exchange", name, primary_key=True),
        Column("routing_key", name, primary_key=True),
        Column("queue", name, primary_key=True, index=True),
        **options,
    )
    Table(
        DEAD,
        metadata,
        id_column(),
        Column("queue", name, nullable=False, index=True),
        Column("place", SmallInteger, nullable=False),
        Column("reason", name, nullable=False),
        Column("detail", long_text, nullable=False),
        Column("deliveries", BigInteger, nullable=False),
        Column("died_at", BigInteger, nullable=False),
        Column("body", body, nullable=False),
        **options,
    )
    return metadata


def _first(connection: Connection) -> None:
    _tables(connection).create_all(connection)
    if connection.dialect.name == "postgresql":
        # Messages come and go: their table has to be vacuumed by what went through it, not by its share
        # of a size that is usually small, and at once, for dead index entries are what slows a queue.
        connection.execute(
            text(
                f"ALTER TABLE {MESSAGES} SET (autovacuum_vacuum_threshold = 2000, "
                "autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0, "
                "autovacuum_analyze_threshold = 10000)"
            )
        )
        # Renewing a lease rewrites one row in place where its page has room.
        connection.execute(text(f"ALTER TABLE {CONSUMERS} SET (fillfactor = 50)"))


def _marks(connection: Connection) -> None:
    Table(
        MARKS,
        MetaData(),
        Column("name", _name(connection), primary_key=True),
        Column("value", Text, nullable=False),
        Column("used_at", BigInteger, nullable=False),
        **_OPTIONS,
    ).create(connection, checkfirst=True)


#: Each changes the tables from the version of its position to the next; never edited, only added to.
_MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first,)

#: The version this package works with.
VERSION = len(_MIGRATIONS)

#: Tables that came later, and what makes each where it is missing. They are no new version, which would lock
#: out the processes that run the package from before: those do not know of the table, and need not.
ADDED: dict[str, Callable[[Connection], None]] = {MARKS: _marks}


def migrate(dialect: str, connect: Callable[[], Any], timeout: float) -> None:
    """Bring the tables to `VERSION`, and make those of `ADDED`. Raises `NewerSchema` and SQLAlchemy's errors.

    `dialect` is a SQLAlchemy name such as `mysql+pymysql`, `connect` returns a connection of its driver.
    """
    engine = create_engine(f"{dialect}://", creator=connect, poolclass=NullPool)
    with engine.connect() as connection, _locked(connection, timeout):
        version = _version(connection)
        if version > VERSION:
            raise NewerSchema
        for migration in _MIGRATIONS[version:]:
            migration(connection)
        for add in ADDED.values():
            add(connection)
        if version < VERSION:
            connection.execute(text(f"DELETE FROM {VERSIONS}"))
            connection.execute(text(f"INSERT INTO {VERSIONS} (version) VALUES ({VERSION})"))
        connection.commit()


@contextmanager
def _locked(connection: Connection, timeout: float) -> Iterator[None]:
    """Let one process at a time do the block; on PostgreSQL as one transaction, on MySQL DDL cannot be."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        yield
        return
    # MySQL's lock names are shared by all databases of a server.
    name = f"concat('{PREFIX}', left(md5(database()), 16))"
    if not connection.execute(text(f"SELECT get_lock({name}, {timeout:g})")).scalar():
        raise TimeoutError("another process has been changing its tables for too long")
    try:
        yield
    finally:
        connection.execute(text(f"SELECT release_lock({name})"))


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(VERSIONS):
        connection.execute(text(f"CREATE TABLE {VERSIONS} (version INTEGER NOT NULL PRIMARY KEY)"))
    return connection.execute(text(f"SELECT version FROM {VERSIONS}")).scalar() or 0
