"""The script that generates passwords: once, for its user alone, and never over what is there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker_profiles.settings import Environment
from tests.compose.project import SECRETS_SCRIPT

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a fresh clone as the script knows of."""
    folder = tmp_path / "a clone" / "config" / "compose"
    folder.mkdir(parents=True)
    shutil.copy(SECRETS_SCRIPT, folder)
    return tmp_path / "a clone"


def generate(checkout: Path, **environ: str) -> str:
    base = {name: value for name, value in os.environ.items() if name != "BROKER_PROFILES_SECRETS"}
    return subprocess.run(
        ["sh", "config/compose/secrets.sh"],
        cwd=checkout,
        env=base | environ,
        check=True,
        text=True,
        capture_output=True,
    ).stdout


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_passwords_are_long_random_and_closed_to_others(checkout: Path) -> None:
    said = generate(checkout)
    folder = checkout / "config" / "compose" / "secrets"
    passwords = {name: text.strip() for name, text in contents(folder).items() if name.endswith("_password")}
    assert sorted(passwords) == [f"{name}_password" for name in ("flower", "postgresql", "rabbitmq", "redis")]
    assert all(len(text) == 48 for text in passwords.values())
    assert len(set(passwords.values())) == 4
    assert not any(text in said for text in passwords.values())
    assert mode(folder) == 0o700
    assert mode(checkout / ".env") == 0o600
    # The folder keeps others out; each container reads its file under a user of its own.
    assert {mode(path) for path in folder.iterdir()} == {0o444}


def test_a_second_run_changes_nothing(checkout: Path) -> None:
    generate(checkout)
    folder = checkout / "config" / "compose" / "secrets"
    before, environment = contents(folder), (checkout / ".env").read_text()
    generate(checkout)
    assert contents(folder) == before
    assert (checkout / ".env").read_text() == environment


def test_what_is_missing_is_made_to_fit_what_is_there(checkout: Path) -> None:
    generate(checkout)
    folder = checkout / "config" / "compose" / "secrets"
    before = contents(folder)
    for name in ("redis_url", "redis.conf"):
        (folder / name).unlink()
    generate(checkout)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LOGLEVEL=debug", "LOGLEVEL=debug\nBROKER_PROFILES_SECRETS=./config/compose/secrets\n"),
        ("LOGLEVEL=debug\n", "LOGLEVEL=debug\nBROKER_PROFILES_SECRETS=./config/compose/secrets\n"),
        ("", "BROKER_PROFILES_SECRETS=./config/compose/secrets\n"),
        ("BROKER_PROFILES_SECRETS=elsewhere\n", "BROKER_PROFILES_SECRETS=elsewhere\n"),
    ],
)
def test_an_env_file_that_is_there_is_kept(checkout: Path, before: str, after: str) -> None:
    (checkout / ".env").write_text(before)
    generate(checkout)
    assert (checkout / ".env").read_text() == after
    folder = checkout / after.splitlines()[-1].partition("=")[2]
    assert (folder / "flower_password").is_file()


def test_a_folder_from_the_environment_leaves_the_checkout_alone(checkout: Path, tmp_path: Path) -> None:
    generate(checkout, BROKER_PROFILES_SECRETS=str(tmp_path / "apart"))
    assert (tmp_path / "apart" / "redis_url").is_file()
    assert not (checkout / ".env").exists()
    assert not (checkout / "config" / "compose" / "secrets").exists()


@pytest.mark.parametrize(
    ("kind", "file", "variable", "host"),
    [
        ("rabbitmq", "rabbitmq_url", "RABBITMQ_URL_FILE", "rabbitmq"),
        ("redis", "redis_url", "REDIS_URL_FILE", "redis"),
        ("postgresql", "database_url", "DATABASE_URL_FILE", "postgresql"),
    ],
)
def test_the_addresses_are_ones_we_read(
    tmp_path: Path, checkout: Path, kind: str, file: str, variable: str, host: str
) -> None:
    folder = tmp_path / "apart"
    generate(checkout, BROKER_PROFILES_SECRETS=str(folder))
    address = urlsplit(Environment({variable: str(folder / file)}).address(kind).url)
    assert address.hostname == host
    assert address.password == (folder / f"{kind}_password").read_text().strip()
