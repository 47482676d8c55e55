"""What every test may ask for: a profile's servers, and an environment without the caller's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from broker_profiles.comparison.servers import Server, ServerPool, ServerUnavailable

#: Variables of the caller that would change what a test sees.
_OURS = ("BROKER_PROFILE", "CELERY_", "BROKER_URL", "RESULT_")

ServerOf = Callable[[str], Server]

_pools: list[ServerPool] = []


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_OURS) and not name.startswith("BROKER_PROFILES_"):
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
        item.config.stash[_report] = _pools[0].report()
    yield


_report = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers were used and how they were had."""
    lines = config.stash.get(_report, [])
    if lines:
        terminalreporter.section("servers")
        for line in lines:
            terminalreporter.line(line)
