"""MariaDB (or MySQL by its image) with a database and a user of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from ..base import Server
from ..description import Account, Native, Site, System


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


class MySQL(System):
    """MariaDB 10.6 or later, MySQL 8."""

    name = "mysql"
    url_variable = "DATABASE_URL"
    schemes = ("mysql", "mariadb")
    driver = "PyMySQL"
    image = "mariadb:11"
    container_port = 3306
    native = MariaDBProcess()

    def url(self, account: Account) -> str:
        return f"mysql://{account.address}/{account.name}"

    def probe(self, url: str, timeout: float) -> str:
        import pymysql

        parts = urlsplit(url)
        connection = pymysql.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path[1:]) or None,
            connect_timeout=max(1, round(timeout)),
            read_timeout=timeout,
            write_timeout=timeout,
        )
        with connection, connection.cursor() as cursor:
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


def _set_read_only(url: str, value: int) -> None:
    import pymysql

    parts = urlsplit(url)
    # Root has the same password, and may do what users may not.
    connection = pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user="root",
        password=unquote(parts.password or ""),
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SET GLOBAL read_only = {value}")


SYSTEM = MySQL()
