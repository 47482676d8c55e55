"""PostgreSQL with a database and a user of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from ..base import POLL_SECONDS, Server, ServerUnavailable
from ..description import Account, Native, Site, System, Tables, without_driver

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

_USUAL, _SMALL = "pg_default", "small"  # tablespaces

_RELOAD_SECONDS = 10.0


class PostgreSQLProcess(Native):
    """postgres on a cluster made by initdb; it refuses to run as root."""

    package = "postgresql"
    programs = ("postgres", "initdb")
    # Debian keeps the programs of each version off PATH; what is on PATH may be an old client.
    folders = (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/pgsql/bin",
    )
    user = "postgres"
    stop_signal = signal.SIGINT  # "fast": the polite one waits until every client has left

    def write_files(self, site: Site) -> None:
        site.write("password", site.account.password + "\n")

    def setup(self, site: Site) -> Sequence[tuple[Sequence[str], str]]:
        data = str(site.folder / "data")
        initdb = [
            *(str(site.programs["initdb"]), "--pgdata", data, "--username", site.account.user),
            *("--pwfile", str(site.folder / "password"), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ]
        # Without a network and a client: the server reads SQL from its standard input.
        create = [str(site.programs["postgres"]), "--single", "-D", data, "postgres"]
        return ((initdb, ""), (create, f"CREATE DATABASE {site.account.name}\n"))

    def command(self, site: Site) -> Sequence[str]:
        return [
            *(str(site.programs["postgres"]), "-D", str(site.folder / "data")),
            *("-p", str(site.account.port), "-c", "listen_addresses=127.0.0.1"),
            *("-c", f"unix_socket_directories={site.folder}"),
        ]


class PostgreSQLTables(Tables):
    """In a tablespace. The log stays where it is: PostgreSQL that cannot write it dies at once."""

    user = "postgres"

    def move(self, server: Server, folder: str) -> None:
        import psycopg

        own = "-c lock_timeout=10s"
        try:
            with psycopg.connect(without_driver(server.url), autocommit=True, options=own) as connection:
                if folder:
                    _each_table(connection, "VACUUM (FULL) {}")  # or a new row finds room in an old page
                    connection.execute(f"CREATE TABLESPACE {_SMALL} LOCATION '{folder}'")
                    _move_all(connection, _USUAL, _SMALL)
                    # With its map of free space: a recovery makes it, and ends where it cannot.
                    _each_table(connection, "VACUUM {}")
                else:
                    _move_all(connection, _SMALL, _USUAL)
                    connection.execute(f"DROP TABLESPACE {_SMALL}")
        except psycopg.errors.UndefinedObject:
            pass  # there is no such tablespace, hence nothing to move back
        except psycopg.Error as error:
            raise ServerUnavailable(server.redact(f"its tables cannot be moved: {error}")) from None


def _each_table(connection: Connection[Any], command: LiteralString) -> list[Cursor[Any]]:
    """Execute a command with the name of each table of the database; return the results."""
    from psycopg.sql import SQL, Identifier

    tables = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    return [connection.execute(SQL(command).format(Identifier(*table))) for table in tables.fetchall()]


def _move_all(connection: Connection[Any], source: str, target: str) -> None:
    for kind in ("TABLE", "INDEX"):
        connection.execute(f"ALTER {kind} ALL IN TABLESPACE {source} SET TABLESPACE {target}")


class PostgreSQL(System):
    """PostgreSQL."""

    name = "postgresql"
    url_variable = "DATABASE_URL"
    schemes = ("postgresql", "postgres")
    driver = "psycopg[binary]"
    image = "postgres:17"
    container_port = 5432
    stop_signal = "SIGINT"
    native = PostgreSQLProcess()
    tables = PostgreSQLTables()

    def url(self, account: Account) -> str:
        return f"postgresql://{account.address}/{account.name}"

    def probe(self, url: str, timeout: float) -> str:
        import psycopg

        with psycopg.connect(
            without_driver(url), connect_timeout=max(2, round(timeout)), autocommit=True
        ) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0]).split()[0]  # without the packager's addition

    def environment(self, account: Account) -> Mapping[str, str]:
        return {
            "POSTGRES_USER": account.user,
            "POSTGRES_PASSWORD": account.password,
            "POSTGRES_DB": account.name,
        }

    def fill(self, server: Server) -> Callable[[], None]:
        """Read only, as providers make a database whose disk is full."""
        _set_read_only(server.url, "on")
        return lambda: _set_read_only(server.url, "off")

    def stored(self, server: Server) -> int:
        """The rows of all tables of its database."""
        import psycopg

        with psycopg.connect(without_driver(server.url), autocommit=True) as connection:
            counts = _each_table(connection, "SELECT count(*) FROM {}")
            return sum(rows for count in counts for (rows,) in count)


def _set_read_only(url: str, value: str) -> None:
    import psycopg

    own = "-c default_transaction_read_only=off"
    with psycopg.connect(without_driver(url), autocommit=True, options=own) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")
    # Who connects after the reload sees it, and the others have been told by then.
    deadline = time.monotonic() + _RELOAD_SECONDS
    while _read_only(url) != value:
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"PostgreSQL is not read only: {value}, {_RELOAD_SECONDS:g} s after a reload"
            )
        time.sleep(POLL_SECONDS)


def _read_only(url: str) -> str:
    """Return what a new connection finds: `on` or `off`."""
    import psycopg

    with psycopg.connect(without_driver(url), autocommit=True) as connection:
        row = connection.execute("SHOW default_transaction_read_only").fetchone()
    assert row is not None
    return str(row[0])


SYSTEM = PostgreSQL()
