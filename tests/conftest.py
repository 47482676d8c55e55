"""What every test may ask for: a profile's servers, and an environment without the caller's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker_profiles.comparison.servers import Server, ServerPool, ServerUnavailable

#: Variables of the caller that would change what a test sees.
_OURS = ("BROKER_PROFILE", "CELERY_", "BROKER_URL", "RESULT_")

#: The size of the caller's terminal; readline sets it for the processes that pytest-xdist starts.
_TERMINAL = ("COLUMNS", "LINES")

ServerOf = Callable[[str], Server]

_pools: list[ServerPool] = []

# The assertions of their helpers explain themselves as those of test modules do.
pytest.register_assert_rewrite("tests.acceptance", "tests.stores", "tests.unit")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in _TERMINAL or (name.startswith(_OURS) and not name.startswith("BROKER_PROFILES_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    with ServerPool() as pool:
        _pools.append(pool)
        yield pool


@pytest.fixture
def server(server_pool: ServerPool) -> ServerOf:
    """Return a function from the name of a system to its server; skips the test, or fails it in CI."""

    def get(system: str) -> Server:
        try:
            return server_pool.get(system)
        except ServerUnavailable as error:
            if os.environ.get("CI"):
                pytest.fail(f"no {system} server: {error}")
            pytest.skip(f"no {system} server: {error}")

    return get


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Note the servers before the session's end closes them."""
    if nextitem is None and _pools:
        lines = _pools[0].report()
        item.config.stash[_report] = lines
        if hasattr(item.config, "workeroutput"):  # one process of pytest-xdist's
            item.config.workeroutput["servers"] = lines
    yield


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Gather the servers that a process of pytest-xdist's had."""
    lines = getattr(node, "workeroutput", {}).get("servers", [])
    node.config.stash[_report] = sorted({*node.config.stash.get(_report, []), *lines})


_report = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers were used and how they were had."""
    lines = config.stash.get(_report, [])
    if lines:
        terminalreporter.section("servers")
        for line in lines:
            terminalreporter.line(line)
