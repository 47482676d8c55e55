"""MariaDB (or MySQL by its image) with a database and a user of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..base import Server, ServerUnavailable
from ..description import Account, Native, Site, System, Tables

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor


_ELSEWHERE = " DATA DIRECTORY='"


class MariaDBProcess(Native):
    """mariadbd on a folder made by mariadb-install-db, without the machine's configuration."""

    package = "mariadb-server"
    programs = ("mariadbd", "mariadb-install-db")
    user = "mysql"

    def write_files(self, site: Site) -> None:
        account = site.account
        # Run at every start, so written to be repeated; a file keeps the password out of `ps`.
        site.write(
            "start.sql",
            f"CREATE DATABASE IF NOT EXISTS {account.name};\n"
            f"CREATE USER IF NOT EXISTS '{account.user}'@'%' IDENTIFIED BY '{account.password}';\n"
            f"GRANT ALL ON {account.name}.* TO '{account.user}'@'%';\n"
            f"ALTER USER root@localhost IDENTIFIED BY '{account.password}';\n"
            "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n"
            f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{account.password}';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1';\n",
        )

    def setup(self, site: Site) -> Sequence[tuple[Sequence[str], str]]:
        install = [
            *(str(site.programs["mariadb-install-db"]), "--no-defaults"),
            *(f"--datadir={site.folder / 'data'}", "--auth-root-authentication-method=normal"),
            "--skip-test-db",
        ]
        return ((install, ""),)

    def command(self, site: Site) -> Sequence[str]:
        return [
            *(str(site.programs["mariadbd"]), "--no-defaults"),
            *(f"--datadir={site.folder / 'data'}", f"--socket={site.folder / 'socket'}"),
            *("--bind-address=127.0.0.1", f"--port={site.account.port}"),
            *(f"--pid-file={site.folder / 'server.pid'}", f"--tmpdir={site.folder}"),
            *("--skip-name-resolve", f"--init-file={site.folder / 'start.sql'}"),
        ]


class MariaDBTables(Tables):
    """As copies that say where they are, for `ALTER TABLE` cannot. The log stays where it is."""

    user = "mysql"

    def move(self, server: Server, folder: str) -> None:
        import pymysql

        try:
            with _connect(server.url, user="root") as connection, connection.cursor() as cursor:
                cursor.execute("SET lock_wait_timeout = 5")
                # Nobody but root writes a row between the copy and the exchange.
                cursor.execute("SET GLOBAL read_only = 1")
                try:
                    for table in _tables(cursor):
                        _copy(cursor, table, folder)
                finally:
                    cursor.execute("SET GLOBAL read_only = 0")
        except pymysql.MySQLError as error:
            raise ServerUnavailable(server.redact(f"its tables cannot be moved: {error}")) from None


def _tables(cursor: Cursor) -> list[str]:
    cursor.execute("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
    return [row[0] for row in cursor.fetchall()]


def _copy(cursor: Cursor, table: str, folder: str) -> None:
    """Put a copy in a table's place, in this folder or in the usual one."""
    cursor.execute(f"SHOW CREATE TABLE `{table}`")
    (_, statement), *_ = cursor.fetchall()
    statement, elsewhere, _ = statement.partition(_ELSEWHERE)
    if not folder and not elsewhere:
        return
    copy, old = f"{table}_copy", f"{table}_old"
    place = f"{_ELSEWHERE}{folder}'" if folder else ""
    cursor.execute(statement.replace(f"`{table}`", f"`{copy}`", 1) + place)
    try:
        cursor.execute(f"INSERT INTO `{copy}` SELECT * FROM `{table}`")
        cursor.execute(f"RENAME TABLE `{table}` TO `{old}`, `{copy}` TO `{table}`")
    finally:
        cursor.execute(f"DROP TABLE IF EXISTS `{copy}`, `{old}`")


class MySQL(System):
    """MariaDB 10.6 or later, MySQL 8."""

    name = "mysql"
    url_variable = "DATABASE_URL"
    schemes = ("mysql", "mariadb")
    driver = "PyMySQL"
    image = "mariadb:11"
    container_port = 3306
    native = MariaDBProcess()
    tables = MariaDBTables()

    def url(self, account: Account) -> str:
        return f"mysql://{account.address}/{account.name}"

    def probe(self, url: str, timeout: float) -> str:
        with _connect(url, timeout=timeout) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
        assert row is not None
        return str(row[0]).split()[0]  # without the packager's addition

    def environment(self, account: Account) -> Mapping[str, str]:
        return {
            "MYSQL_USER": account.user,  # MariaDB's image reads these names too
            "MYSQL_PASSWORD": account.password,
            "MYSQL_DATABASE": account.name,
            "MYSQL_ROOT_PASSWORD": account.password,
        }

    def fill(self, server: Server) -> Callable[[], None]:
        """Read only, as providers make a database whose disk is full."""
        _set_read_only(server.url, 1)
        return lambda: _set_read_only(server.url, 0)

    def stored(self, server: Server) -> int:
        """The rows of all tables of its database."""
        with _connect(server.url) as connection, connection.cursor() as cursor:
            rows = 0
            for table in _tables(cursor):
                cursor.execute(f"SELECT count(*) FROM `{table}`")
                rows += sum(count for (count,) in cursor.fetchall())
        return rows


def _set_read_only(url: str, value: int) -> None:
    # Root has the same password, and may do what users may not.
    with _connect(url, user="root") as connection, connection.cursor() as cursor:
        cursor.execute(f"SET GLOBAL read_only = {value}")


def _connect(url: str, *, user: str = "", timeout: float = 10.0) -> Connection[Cursor]:
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=user or unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path[1:]) or None,
        connect_timeout=max(1, round(timeout)),
        read_timeout=timeout,
        write_timeout=timeout,
    )


SYSTEM = MySQL()
