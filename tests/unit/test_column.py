"""A column is named by a profile and a server's version; its files are in the folder of the case."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_profiles import load
from broker_profiles.comparison.column import FULL, QUICK, Column, file_variables, parse
from broker_profiles.comparison.servers import names
from broker_profiles.errors import ConfigurationError, UnknownProfile, UnsupportedCombination
from broker_profiles.profile import Mode


@pytest.mark.parametrize("name", [*FULL, *QUICK, "redis:fast", "rabbitmq+postgresql@rabbitmq:3-management"])
def test_a_name_comes_back(name: str) -> None:
    assert parse(name).name == parse(f"  {name} ").name == name


def test_a_quick_run_has_no_profile_that_a_whole_one_has_not() -> None:
    assert len(set(FULL)) == len(FULL)
    assert {parse(name).profile.name for name in QUICK} <= {parse(name).profile.name for name in FULL}


@pytest.mark.parametrize("name", FULL)
def test_a_baseline_is_what_promises_nothing(name: str) -> None:
    column = parse(name)
    assert column.baseline is (column.profile.mode is Mode.STOCK) is (not column.profile.guarantees.kept)
    assert column.baseline is name.startswith("stock-")


@pytest.mark.parametrize("name", FULL)
def test_every_server_of_a_column_can_be_had(name: str) -> None:
    column = parse(name)
    sides = {column.system(column.profile.broker), column.system(column.profile.results)}
    assert sides - {None} <= set(names())


def test_an_image_may_have_slashes_colons_and_a_digest() -> None:
    assert parse("redis@valkey/valkey:8").image == "valkey/valkey:8"
    assert parse("redis@redis@sha256:abc").image == "redis@sha256:abc"
    assert parse("redis@") == Column(load("redis"))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("rabitmq", UnknownProfile, "rabbitmq"),
        ("", ConfigurationError, "profile"),
        ("@redis:7", ConfigurationError, "profile"),
        ("memory", UnsupportedCombination, "kills processes"),
        ("embedded@redis:7", UnsupportedCombination, "no server"),
    ],
)
def test_a_name_that_cannot_be_is_an_error(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(name)


def test_a_file_is_in_the_folder_of_the_case(tmp_path: Path) -> None:
    found = file_variables(tmp_path)
    assert [Path(path).parent for path in found.values()] == [tmp_path] * len(found)
    assert load("embedded", environ=found).broker.name == "embedded"
