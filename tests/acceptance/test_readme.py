"""README.md is true: its blocks run as a reader would run them, and its tables say what the code says.

The blocks below one heading are run in order in one copy of the repository, by the rules in readme_rules.py.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker_profiles import load
from broker_profiles.cli import cli
from broker_profiles.comparison.servers import description
from broker_profiles.errors import UnsupportedCombination
from broker_profiles.options import OPTIONS, Option
from broker_profiles.profile import CONTRACT, RESULT_GUARANTEES
from broker_profiles.registry import BROKERS, RESULT_STORES, find_broker
from broker_profiles.settings import Environment, address_variable
from tests.acceptance.readme_rules import LANGUAGES, run_sh
from tests.acceptance.readme_session import READY, http_status, session
from tests.acceptance.readme_text import README, SECTIONS, Block, blocks, table
from tests.acceptance.running import ROOT
from tests.acceptance.test_profiles import CASES
from tests.conftest import ServerOf

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

# -- blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_the_blocks_of_a_section_run(section: str, server: ServerOf, tmp_path: Path) -> None:
    with session(tmp_path, server) as reader:
        for block in SECTIONS[section]:
            assert block.language in LANGUAGES, f"README.md:{block.number}: nothing runs {block.language!r}"
            LANGUAGES[block.language](reader, block)


def test_flower_answers_metrics_without_its_password(server: ServerOf, tmp_path: Path) -> None:
    assert "`/metrics` and `/healthcheck` answer without" in README.replace("\n", " ")
    with session(tmp_path, server) as reader:
        reader.environ["FLOWER_BASIC_AUTH"] = "celery:secret"
        with pytest.MonkeyPatch.context() as patch:
            # Its page is not to be had, so it is ready by another sign.
            patch.setitem(READY, "flower", lambda each: http_status(each, "/healthcheck") == 200)
            reader.background("celery -A tasks flower")
        assert http_status(reader, "/metrics") == 200
        assert http_status(reader, "/workers") == 401


@pytest.mark.parametrize(
    ("text", "message"),
    [("```\nls\n```", "language"), ("  ```sh\n  ls\n  ```", "indent"), ("```sh\nls\n", "closed")],
)
def test_a_block_that_cannot_be_read_is_found(text: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        list(blocks(text))


def test_a_command_without_a_rule_fails(server: ServerOf, tmp_path: Path) -> None:
    with session(tmp_path, server) as reader, pytest.raises(pytest.fail.Exception, match="no rule"):
        run_sh(reader, Block("", "sh", ["celery -A tasks unheard-of"], 1))


# -- tables -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed() -> Any:
    """What `broker-profiles list --json` says."""
    return json.loads(CliRunner().invoke(cli, ["list", "--json"]).stdout)


def ids(condensed: str) -> set[str]:
    """Return the ids that `DEL-1..3,7 ORD-1` stands for."""
    found = set()
    for kind, numbers in (word.rsplit("-", 1) for word in condensed.split()):
        for span in numbers.split(","):
            first, _, last = span.partition("..")
            found |= {f"{kind}-{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def test_the_table_of_profiles(listed: Any) -> None:
    rows = table("Profile", "Broker", "Mode", "Default results", "Keeps", "Gives up")
    ours = [(*row[:4], ids(row[4]), ids(row[5])) for row in rows]
    expected = [
        (
            broker["name"] + (f":{mode}" if number else ""),
            broker["title"],
            mode,
            broker["default_results"],
            # Results are for the result store to keep or not.
            set(promises["keeps"]) - RESULT_GUARANTEES,
            set(promises["does_not_keep"]) - RESULT_GUARANTEES,
        )
        for broker in listed["brokers"]
        for number, (mode, promises) in enumerate(broker["modes"].items())
    ]
    assert ours == expected


def test_the_table_of_result_stores(listed: Any) -> None:
    rows = table("Results", "Store", "Keeps", "Gives up", "Chords")
    expected = [
        (
            store["name"],
            store["title"],
            set(store["keeps"]),
            set(store["does_not_keep"]),
            "yes" if store["chords"] else "no",
        )
        for store in listed["results"]
    ]
    assert [(row[0], row[1], ids(row[2]), ids(row[3]), row[4]) for row in rows] == expected


def test_the_table_of_promises() -> None:
    assert dict(table("Id", "Promise")) == dict(CONTRACT)


def allowed(option: Option) -> str:
    """Return the values of an option as the table writes them."""
    if option.choices:
        return ", ".join(option.choices)
    if isinstance(option.default, str):
        return "a path"
    return f"{plain(option.minimum)} to {plain(option.maximum)}"


def plain(number: object) -> str:
    """Return a number without needless digits, and a text as it is."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def test_the_table_of_options() -> None:
    rows = table("Variable", "Default", "Allowed", "Meaning")
    expected = [[each.variable, plain(each.default), allowed(each)] for each in OPTIONS.values()]
    assert [row[:3] for row in rows] == expected


def test_the_table_of_addresses(tmp_path: Path) -> None:
    rows = table("Server", "Variable", "In a file", "For results alone", "In a file", "Default")
    kinds = {find_broker(name).address for name in BROKERS} - {None, "memory", "database"}
    assert {row[0].lower() for row in rows} == kinds
    secret = tmp_path / "secret"
    for kind, *names, default in ((row[0].lower(), *row[1:]) for row in rows):
        secret.write_text(default)
        assert Environment({}).address(kind).url == default
        assert names[0] == address_variable(kind)
        for variable, results in zip(names, (False, False, True, True), strict=True):
            if variable:
                value = str(secret) if variable.endswith("_FILE") else default
                found = Environment({variable: value}).address(kind, results=results)
                assert found.variable == variable.removesuffix("_FILE")


def test_the_table_of_servers() -> None:
    rows = table("System", "Address", "Image", "Variable for another image", "Package")
    systems = [description.load(name) for name in description.names()]
    expected = {
        each.name: [
            each.url_variable,
            each.image,
            each.image_variable,
            each.native.package if each.native else "none",
        ]
        for each in systems
    }
    assert {row[0].lower(): row[1:] for row in rows} == expected


# -- what the text says -------------------------------------------------------------------------------


def test_what_is_said_to_be_tested_is() -> None:
    said = README[README.index("- 300 tasks") :].split(";")[0]
    ours = set(re.findall(r"`([^`]+)`", said))
    assert ours == {profile for profile, _ in CASES} | {"memory"}


def test_which_broker_takes_which_result_store() -> None:
    refused = set()
    for broker in BROKERS:
        for store in RESULT_STORES:
            try:
                load(f"{broker}+{store}")
            except UnsupportedCombination:
                refused.add((broker, store))
    without_rabbitmq = {broker for broker in BROKERS if find_broker(broker).address != "rabbitmq"}
    elsewhere = {(broker, "memory") for broker in BROKERS if broker != "memory"}
    assert refused == {(b, store) for b in without_rabbitmq for store in ("rpc", "stock-rpc")} | elsewhere


def test_the_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    paragraph = README[README.index("Install it with the extras") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", paragraph)) <= set(extras)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_and_files_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`(?:\w+=\S+ )?make ([a-z-]+)`", text)) <= targets
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    anchors = {re.sub(r"[^\w-]", "", each.lower().replace(" ", "-")) for each in SECTIONS}
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / (path or name)).exists(), link
        assert not anchor or anchor in anchors, link
