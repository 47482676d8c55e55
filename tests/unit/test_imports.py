"""Imports run one way; drivers are imported by their own files alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "broker_profiles"

#: Each layer may import from its own and the ones before it.
LAYERS: list[set[str]] = [
    {"errors", "options", "profile", "settings", "spelling", "tls"},
    {"brokers", "results", "transports"},
    {"registry"},
    {"configuration", "runtime", "doctor", "migration"},
    {"comparison", "demo", "django"},
    {"cli"},
]

DRIVERS = {"redis", "sqlalchemy", "psycopg", "pymysql", "pymongo", "amqp", "sqlite3"}

#: Who may import a driver: the files of its own system.
DRIVER_FILES = {
    "redis": {"transports/redis", "comparison/servers/systems/redis", "cli/check"},
    "sqlalchemy": {"transports/sql", "transports/postgresql", "transports/mysql", "results/sql_backend"},
    "psycopg": {"transports/postgresql", "transports/sql_psycopg", "comparison/servers/systems/postgresql"},
    "pymysql": {"transports/mysql", "transports/sql_pymysql", "comparison/servers/systems/mysql"},
    "pymongo": {"transports/mongodb", "results/mongodb_backend", "comparison/servers/systems/mongodb"},
    "amqp": {"transports/rabbitmq", "transports/librabbitmq", "comparison/servers/systems/rabbitmq"},
    "sqlite3": {"transports/sqlite", "comparison/service", "comparison/report/environment"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules a file imports when it runs, in functions too."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    package = [*path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *filter(None, [node.module])])


def layer_of(part: str) -> int:
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    pytest.fail(f"broker_profiles/{part} is in no layer: add it to LAYERS")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_before_it(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    for name in imports(path):
        if name.startswith("broker_profiles."):
            target = name.split(".")[1]
            assert layer_of(target) <= layer_of(part), f"{path} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_driver_is_imported_by_its_own_files(path: Path) -> None:
    where = path.relative_to(PACKAGE).with_suffix("").as_posix()
    for name in imports(path):
        driver = name.split(".")[0]
        if driver in DRIVERS:
            allowed = DRIVER_FILES[driver]
            assert any(where.startswith(prefix) for prefix in allowed), f"{path} imports {name}"


def test_brokers_do_not_import_each_other() -> None:
    shared = {"amqp", "common", "leased"}
    for path in (PACKAGE / "brokers").glob("*.py"):
        for name in imports(path):
            if name.startswith("broker_profiles.brokers."):
                assert name.split(".")[2] in shared, f"{path} imports {name}"


def test_tasks_and_config_use_the_public_names() -> None:
    for folder in ("tasks", "config"):
        for path in (ROOT / folder).rglob("*.py"):
            names = [name for name in imports(path) if name.startswith("broker_profiles")]
            assert set(names) <= {"broker_profiles"}, f"{path} imports {names}"


def test_code_branches_on_guarantees_and_not_on_names() -> None:
    from broker_profiles.registry import BROKERS

    for path in sources():
        if part_of(path) in {"brokers", "results", "registry", "settings"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and "broker.name" in ast.unparse(node):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not constants & set(BROKERS), f"{path}:{node.lineno}"
