"""Every promise on every profile, one test a cell: the scenarios of `broker-profiles compare` as tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_profiles.comparison.column import FULL, Host, parse
from broker_profiles.comparison.matrix import Standing, standing
from broker_profiles.comparison.run import Attempt, attempt
from broker_profiles.comparison.scenario import Case, all_cases, select
from broker_profiles.comparison.servers import ServerUnavailable
from broker_profiles.profile import CONTRACT

CASES = all_cases()

#: What `make test` has time for; the rest is `make test-all`.
ALWAYS = select(CASES, ["DEL-1/child_killed", "ETA-1/on_time", "RES-2/with_counting", "CTL-1/inspected"])


def cells() -> Iterator[object]:
    for case in ALWAYS:
        yield pytest.param("embedded", [case], id=f"embedded-{case.id}")
    for column in FULL:
        for promise in CONTRACT:
            cases = [case for case in CASES if case.guarantee == promise]
            marks = [pytest.mark.slow, pytest.mark.timeout(900)]
            yield pytest.param(column, cases, id=f"{column}-{promise}", marks=marks)


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    """The servers of the column at work; those of another are closed first."""
    running: dict[str, Host] = {}
    yield running
    for host in running.values():
        host.close()


def host_of(hosts: dict[str, Host], name: str) -> Host:
    if name not in hosts:
        for other in hosts.values():
            other.close()
        hosts.clear()
        hosts[name] = Host(parse(name))
    host = hosts[name]
    if not host.started:
        try:
            host.start()
        except ServerUnavailable as error:
            if os.environ.get("CI"):
                pytest.fail(f"no server for {name}: {error}")
            pytest.skip(f"no server for {name}: {error}")
    return host


@pytest.mark.parametrize(("column", "cases"), list(cells()))
def test_a_promise_that_is_declared_holds(
    hosts: dict[str, Host], column: str, cases: list[Case], tmp_path: Path
) -> None:
    guarantees = host_of(hosts, column).guarantees
    found = [try_case(host_of(hosts, column), case, tmp_path / case.name) for case in cases]
    profile = parse(column)
    said = standing(
        [one.outcome for one in found],
        declared=guarantees.holds(cases[0].guarantee),
        baseline=profile.baseline,
    )
    told = "\n".join(f"{one.case.id}: {one.outcome} {one.detail}" for one in found)
    assert not said.fails, f"{said}\n{told}"
    assert said is not Standing.UNDECLARED, f"declare it, for it holds\n{told}"


def try_case(host: Host, case: Case, folder: Path) -> Attempt:
    found = attempt(host, case, folder, alone=True)
    if case.fresh and host.owned:
        host.close()
    return found
