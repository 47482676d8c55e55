"""The kinds of commands and blocks that README.md has, and how each is run.

What runs until Ctrl-C is started in the background and has to end with status 0 on SIGTERM when the section
is over. The last argument of `print` lines in Python blocks, a comment, is what they have to print; `console`
blocks hold what each command after `$` has to print. A line that no rule here knows fails, so that none is
added untested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.readme_session import Session
from tests.acceptance.readme_text import Block
from tests.acceptance.running import ROOT


def make_dry(reader: Session, command: str) -> None:
    """The tests cannot run themselves: look whether make knows how to."""
    assert "pytest" in reader.foreground(f"{command} --dry-run")


def pip_install(reader: Session, command: str) -> None:
    """Install into a folder that comes first, not into the environment that runs the tests.

    Without the dependencies: those are there, for the tests have them all.
    """
    site = reader.clone.parent / "site"
    command = command.replace("/path/to/broker-profiles", str(reader.clone))
    options = f"--quiet --no-deps --disable-pip-version-check --target {site}"
    reader.foreground(command.replace("pip install", f"python -m pip install {options}", 1))
    reader.environ["PYTHONPATH"] = str(site)
    # A folder of its own, else the package of the clone would be found before the installed one.
    reader.folder = reader.clone.parent / "project"
    reader.folder.mkdir()
    found = reader.foreground("python -c 'import broker_profiles; print(broker_profiles.__file__)'")
    assert Path(found.strip()).is_relative_to(site)


def compose(reader: Session, command: str) -> None:
    """tests/compose brings the files up; here only: is it a command for a file that is valid."""
    parts = re.fullmatch(r"(docker compose -f \S+\.yml) (up|down)( .*)?", command)
    assert parts, command
    file = parts[1].split()[-1]
    assert command in " ".join((ROOT / file).read_text().split()), f"{file} itself says it otherwise"
    if shutil.which("docker"):
        reader.foreground(f"{parts[1]} config --quiet")


RULES: list[tuple[str, Callable[[Session, str], object]]] = [
    (r"celery -A \w+ (worker|beat|flower)( --loglevel=\w+)?", Session.background),
    (r"(\. |export |set -a; \. ).+", Session.adopt),
    (r"(\w+=\S+ )*make test(-\w+)?", make_dry),
    (r"(\w+=\S+ )*make demo", Session.foreground),
    (r"broker-profiles (list|show|check)( \S+)*", Session.foreground),
    (r"broker-profiles results (list|show|purge)( \S+)*", Session.foreground),
    (r"broker-profiles compare( \S+)*", Session.foreground),
    (r"broker-profiles dead (list|show|replay|discard)( \S+)*", Session.foreground),
    (r"celery -A \w+ (inspect \w+|profile (list|show|check|dead list))( \S+)*", Session.foreground),
    (r"sh config/compose/secrets\.sh", Session.foreground),
    (r"pip install '[^']+'", pip_install),
    (r"docker compose .+", compose),
]


def run_sh(reader: Session, block: Block) -> None:
    """Run the commands of a block, each by the first rule that knows it."""
    for number, command in enumerate(block.lines, block.number + 1):
        known = (how for pattern, how in RULES if re.fullmatch(pattern, command))
        how = next(known, None)
        if how is None:
            pytest.fail(f"README.md:{number}: no rule in {Path(__file__).name} runs {command!r}")
        how(reader, command)


def run_python(reader: Session, block: Block) -> None:
    """Run a block as a program, or write it to the file that its first line names and import that."""
    source = "\n".join(block.lines) + "\n"
    named = re.fullmatch(r"# (\w+)\.py", block.lines[0])
    if named:
        (reader.folder / f"{named[1]}.py").write_text(source)
        source = f"import {named[1]}\n"
    done = subprocess.run(
        ["python", "-"],
        input=source,
        cwd=reader.folder,
        env=reader.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", source, re.MULTILINE)


def run_console(reader: Session, block: Block) -> None:
    """Run each command after `$` and compare what it prints, errors and all."""
    for part in "\n".join(block.lines).removeprefix("$ ").split("\n$ "):
        command, _, expected = part.partition("\n")
        assert reader.shell(command).stdout.rstrip() == expected.rstrip(), command


def run_text(_reader: Session, _block: Block) -> None:
    """Output to look at: nothing to run."""


LANGUAGES = {"sh": run_sh, "python": run_python, "console": run_console, "text": run_text}
