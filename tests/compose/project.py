"""A compose file of this repository, brought up beside whatever else runs, and gone afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECRETS_SCRIPT = ROOT / "config" / "compose" / "secrets.sh"
IMAGE = "broker-profiles:test"

#: Variables of the compose files that the caller's environment may set: where packages and images are.
_PASSED_ON = re.compile(r"PIP_.*|PYTHON_IMAGE|(REDIS|RABBITMQ|POSTGRES)_IMAGE")
_LABEL = "com.docker.compose.project"


class CommandFailed(AssertionError):
    """A command ended with an error; the message is its last output."""


def run(*command: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> str:
    """Return what a command prints. Raises `CommandFailed`, and `TimeoutExpired` after `timeout` seconds."""
    done = subprocess.run(
        command, cwd=ROOT, env=env, timeout=timeout, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def why_no_engine() -> str:
    """Return why nothing can be started here, or an empty string where it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command, reason in (
        (("docker", "info", "--format", "{{.ServerVersion}}"), "no container engine answers"),
        (("docker", "compose", "version"), "there is no docker compose"),
    ):
        try:
            run(*command)
        except (CommandFailed, subprocess.TimeoutExpired):
            return reason
    return ""


class Project:
    """One compose file under a name, ports and passwords of its own."""

    def __init__(self, file: str, secrets: Path) -> None:
        self.file = ROOT / file
        self.name = f"broker-profiles-test-{uuid.uuid4().hex[:8]}"
        self.secrets = secrets
        variables = set(re.findall(r"\$\{(\w+)", self.file.read_text(encoding="utf-8")))
        ports = sorted(name for name in variables if name.endswith("_PORT"))
        self.ports = dict(zip(ports, _free_ports(len(ports)), strict=True))
        self.environ = {
            **{k: v for k, v in os.environ.items() if k not in variables or _PASSED_ON.fullmatch(k)},
            **{name: str(port) for name, port in self.ports.items()},
            "BROKER_PROFILES_SECRETS": str(secrets),
            "BROKER_PROFILES_IMAGE": IMAGE,
        }

    @property
    def passwords(self) -> dict[str, str]:
        """Every generated password, by the name of its file."""
        return {path.name: path.read_text().strip() for path in self.secrets.glob("*_password")}

    def command(self, *arguments: str) -> list[str]:
        """Return a docker compose command for this project; a developer's own .env is not read."""
        base = ["docker", "compose", "--env-file", os.devnull, "--file", str(self.file)]
        return [*base, "--project-name", self.name, *arguments]

    def compose(self, *arguments: str, timeout: float = 120) -> str:
        """Run docker compose and return what it prints."""
        return run(*self.command(*arguments), timeout=timeout, env=self.environ)

    def start_compose(self, *arguments: str) -> subprocess.Popen[str]:
        """Start docker compose and return its process."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def missing_images(self) -> list[str]:
        """Return the images that would have to be pulled."""
        wanted = set(self.compose("config", "--images").split()) - {IMAGE}
        wanted.add(self.environ.get("PYTHON_IMAGE") or "python:3.13-slim")
        have = set(run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split())
        return sorted(wanted - have)

    def build(self) -> None:
        """Build the worker's image, and remove the one it replaces."""
        before = run("docker", "images", "--quiet", "--no-trunc", IMAGE).strip()
        self.compose("build", timeout=600)
        if before not in ("", run("docker", "images", "--quiet", "--no-trunc", IMAGE).strip()):
            subprocess.run(["docker", "image", "rm", before], capture_output=True)

    def up(self, *arguments: str) -> None:
        """Bring the project up, or change it, and wait until every container is healthy."""
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", "150", *arguments, timeout=200)
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n{self.last_logs()}") from None

    def last_logs(self) -> str:
        """Return the last lines of every container, for a failure to explain itself."""
        return self.compose("logs", "--no-color", "--tail", "30")

    def down(self) -> None:
        """Remove everything. A second Ctrl-C does not reach this."""
        command = self.command("down", "--volumes", "--remove-orphans", "--timeout", "5")
        for _ in range(3):  # an interrupted `up` may have asked the engine for one thing more
            subprocess.run(command, cwd=ROOT, env=self.environ, capture_output=True, start_new_session=True)
            if not self.leftovers():
                return

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Return what `docker inspect` says of the containers."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        return json.loads(run("docker", "inspect", *ids)) if ids else []

    def leftovers(self) -> list[str]:
        """Return what the project still has on this machine."""
        own = f"label={_LABEL}={self.name}"
        found = []
        for kind, arguments in (
            ("container", ("ps", "--all")),
            ("volume", ("volume", "ls")),
            ("network", ("network", "ls")),
        ):
            listed = run("docker", *arguments, "--quiet", "--filter", own).split()
            found += [f"{kind} {each}" for each in listed]
        return found

    def flower(self, path: str, credentials: str = "") -> int:
        """Return the status with which Flower answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['FLOWER_PORT']}{path}")
        if credentials:
            request.add_header("Authorization", f"Basic {b64encode(credentials.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


def generate_secrets(folder: Path) -> None:
    """Run the script that a user runs once."""
    run("sh", str(SECRETS_SCRIPT), env={**os.environ, "BROKER_PROFILES_SECRETS": str(folder)})


def service_of(container: Mapping[str, Any]) -> str:
    """Return the service that a container of `Project.containers` belongs to."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
