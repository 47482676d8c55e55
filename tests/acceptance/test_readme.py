"""README.md is true: its blocks run as a reader would run them, and its tables say what the code says.

The blocks below one heading are run in order in one copy of the repository: what runs until Ctrl-C is started
in the background and has to end with status 0 on SIGTERM when the section is over. The last argument of
`print` lines in Python blocks, a comment, is what they have to print; `console` blocks hold what each command
after `$` has to print. A line that no rule here knows fails, so that none is added untested.
"""

from __future__ import annotations

import contextlib
import dbm
import json
import os
import pickle
import re
import shelve
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker_profiles import load
from broker_profiles.cli import cli
from broker_profiles.comparison.servers import description
from broker_profiles.errors import UnsupportedCombination
from broker_profiles.profile import CONTRACT, RESULT_GUARANTEES
from broker_profiles.registry import BROKERS, RESULT_STORES, find_broker
from broker_profiles.settings import OPTIONS, Environment, Option, address_variable
from tests.acceptance.running import ROOT, client, until
from tests.acceptance.test_profiles import CASES
from tests.conftest import ServerOf

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

#: Systems whose default address, where the README writes it, stands for a server of this run.
SYSTEMS = ("rabbitmq", "redis", "postgresql", "mysql", "mongodb")

#: What a copy of the repository leaves out: what git ignores, and git.
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".env", "secrets", "build", "*.egg-info", "__pycache__", ".*_cache"),
    *(".hypothesis", "*.sqlite3*", "celerybeat-schedule*"),
)

#: Variables of whoever runs the tests that a newcomer does not have.
NOT_INHERITED = re.compile(
    r"(BROKER_PROFILE|CELERY_|FLOWER_|VIRTUAL_ENV|PYTHONPATH|PYTEST_).*"
    r"|(RESULT_)?(RABBITMQ|REDIS|DATABASE|MONGODB|BROKER)_URL(_FILE)?"
)


# -- reading the document -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language, its lines, and where it is."""

    section: str
    language: str
    lines: list[str]
    number: int


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    section, opened = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if opened is not None:
            if line == "```":
                yield opened
                opened = None
            else:
                opened.lines.append(line)
        elif line.lstrip().startswith(("```", "~~~")):
            assert re.fullmatch(r"```\w+", line), f"line {number}: a block needs a language and no indent"
            opened = Block(section, line[3:], [], number)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    assert opened is None, f"{text[:20]!r}: a block is not closed"


SECTIONS = {section: list(found) for section, found in groupby(blocks(README), lambda block: block.section)}


def table(*header: str) -> list[list[str]]:
    """Return the rows of the table with this header, without the marks of code."""
    start = README.index(f"| {' | '.join(header)} |\n")
    lines = README[start:].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == len(header) for row in rows)
    return rows


# -- running it ---------------------------------------------------------------------------------------


class Session:
    """A reader at work in a fresh clone: a directory, an environment, and what runs in the background."""

    def __init__(self, folder: Path, server: ServerOf) -> None:
        self.clone = folder / "broker-profiles"
        shutil.copytree(ROOT, self.clone, ignore=NOT_COPIED)
        # What make would install is there already, and must not be installed from this copy.
        (self.clone / ".venv").mkdir()
        (self.clone / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
        (self.clone / ".venv" / ".ready").touch()
        self.folder = self.clone
        self.flower_port = _free_port()
        self.environ = {name: text for name, text in os.environ.items() if not NOT_INHERITED.fullmatch(name)}
        # A default that another program may hold; FLOWER_... is Flower's own way to set an option.
        self.environ["FLOWER_PORT"] = str(self.flower_port)
        self.workers = 0
        self._server = server
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self.adopt(". .venv/bin/activate")

    def shell(self, script: str, *, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a script in the shell to its end."""
        return subprocess.run(
            ["sh", "-c", self.here(script)],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def foreground(self, command: str) -> str:
        """Run a command that ends by itself, and well; return what it printed."""
        done = self.shell(command)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    def adopt(self, command: str) -> None:
        """Run a command that changes the environment of the shell, and keep the change."""
        printed = self.foreground(f"{command} && env -0").split("\0")
        self.environ = dict(pair.split("=", 1) for pair in printed if pair)

    def background(self, command: str) -> None:
        """Start what runs until Ctrl-C, and return when it is ready."""
        log = self.clone.parent / f"{len(self._running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self.here(command)}"],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((command, process, log))
        ready = READY[command.split()[3]]

        def answers() -> bool:
            assert process.poll() is None, f"{command} ended: {log.read_text()[-3000:]}"
            return ready(self)

        until(answers, 40, f"{command} is ready")

    def here(self, text: str) -> str:
        """Return text with the addresses of this run's servers in place of the default ones."""
        for system in SYSTEMS:
            default = Environment({}).address(system).url
            if default in text:
                text = text.replace(default, self._server(system).url)
        return text

    def end(self) -> None:
        """Stop what runs, the last first. Fails if one does not end well."""
        for command, process, log in reversed(self._running):
            process.terminate()
            assert process.wait(30) == 0, f"{command}: {process.returncode}\n{log.read_text()[-3000:]}"

    def kill(self) -> None:
        """Leave nothing behind."""
        for _, process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextlib.contextmanager
def session(folder: Path, server: ServerOf) -> Iterator[Session]:
    running: Session | None = None
    try:
        running = Session(folder, server)
        yield running
        running.end()
    finally:
        if running is not None:
            running.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- when something in the background is ready --------------------------------------------------------


def worker_ready(reader: Session) -> bool:
    """Whether one worker more than before answers a ping."""
    path = reader.environ.get("BROKER_PROFILE_EMBEDDED_PATH", "broker-profiles.sqlite3")
    with client({**reader.environ, "BROKER_PROFILE_EMBEDDED_PATH": str(reader.folder / path)}) as app:
        if len(app.control.ping(timeout=1)) <= reader.workers:
            return False
    reader.workers += 1
    return True


def beat_ready(reader: Session) -> bool:
    """Whether beat has written down its schedule: the first tick of that is half a minute away."""
    with tempfile.TemporaryDirectory() as folder:  # a copy, for some kinds of file can be open once
        for path in reader.folder.glob("celerybeat-schedule*"):
            shutil.copy(path, folder)
        # It may have been copied while beat was writing it.
        unfinished = (*dbm.error, EOFError, pickle.UnpicklingError)
        with contextlib.suppress(*unfinished), shelve.open(f"{folder}/celerybeat-schedule", "r") as schedule:
            return "heartbeat" in schedule.get("entries", {})
    return False


def flower_ready(reader: Session) -> bool:
    """Whether Flower answers, and shows its page."""
    return all(http_status(reader, path) == 200 for path in ("/healthcheck", "/workers"))


def http_status(reader: Session, path: str) -> int:
    """Return the status with which Flower answers; 0 where it does not."""
    try:
        url = f"http://127.0.0.1:{reader.flower_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


READY: dict[str, Callable[[Session], bool]] = {
    "worker": worker_ready,
    "beat": beat_ready,
    "flower": flower_ready,
}


# -- rules: a kind of command, and how it is run ------------------------------------------------------


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
    (r"broker-profiles compare( \S+)*", Session.foreground),
    (r"celery -A \w+ (inspect \w+|profile (list|show|check))( \S+)*", Session.foreground),
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
