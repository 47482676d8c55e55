"""What the SQL result stores share: Celery's database backend with connections that are checked."""

from __future__ import annotations

from broker_profiles.profile import Mode, ResultStore, Setting, SettingsFunction
from broker_profiles.results.chords import bounded_chords
from broker_profiles.results.common import FULL, bounded_wait, retried_operations
from broker_profiles.settings import Environment, with_driver
from broker_profiles.tls import verified


def settings_at(kind: str) -> SettingsFunction:
    """Return the settings of results in the database of this kind of address."""

    def settings(environment: Environment, _mode: Mode) -> list[Setting]:
        address = environment.address(kind, results=True)
        return [
            Setting(
                "result_backend",
                f"db+{with_driver(verified(address.url, environment))}",
                "one row a result, removed when it has expired",
                address.variable,
            ),
            Setting(
                "database_create_tables_at_setup",
                False,
                "tables are made by who first uses them; a sender would wait for a store that is away",
            ),
            Setting("database_short_lived_sessions", True, "no transaction stays open between tasks"),
            Setting(
                "database_engine_options",
                {"pool_pre_ping": True, "pool_recycle": 1800},
                "a connection the server has closed is replaced, not an error",
            ),
            *bounded_wait(environment),
            *bounded_chords(environment),
            *retried_operations(),
        ]

    return settings


def store(name: str, title: str, module: str) -> ResultStore:
    """Return the result store of one kind of database."""
    return ResultStore(
        name=name,
        title=title,
        settings=settings_at(name),
        guarantees=FULL,
        modules=("sqlalchemy", module),
        extra=name,
        system=name,
        address=name,
        backends={"db": "broker_profiles.results.sql_backend:SQLBackend"},
    )
