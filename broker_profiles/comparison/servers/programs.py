"""The programs of a native server: found, or installed where we may."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from .base import ServerUnavailable
from .description import Native

INSTALL_SECONDS = 600
_POLICY = Path("/usr/sbin/policy-rc.d")
_FORBIDS = 101  # policy-rc.d's answer for "do not"
_installing = threading.Lock()  # columns start their servers side by side; the policy is there once


def find(native: Native, path: str | None = None) -> dict[str, Path]:
    """Each program's place; a program that is nowhere is left out.

    The folders of the description come first, the newest version first, and programs are
    taken from one folder where possible: initdb and postgres have to be of one version.
    """
    folders = [folder for pattern in native.folders for folder in _newest_first(pattern)]
    folders += (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    found: dict[str, Path] = {}
    for program in native.programs:
        beside = [str(place.parent) for place in found.values()]
        if place := shutil.which(program, path=os.pathsep.join([*beside, *folders])):
            found[program] = Path(place)
    return found


def require(native: Native) -> Mapping[str, Path]:
    """All programs, installed first if we are root on Debian or Ubuntu."""
    found = find(native)
    if len(found) == len(native.programs):
        return found
    missing = next(program for program in native.programs if program not in found)
    if can_install():
        install(native.package)
        found = find(native)
    if len(found) < len(native.programs):
        raise ServerUnavailable(
            f"{missing} is not installed (Debian, Ubuntu: apt-get install {native.package}; "
            "elsewhere the package of that name)"
        )
    return found


def can_install() -> bool:
    """Root on Debian or one of its children."""
    return (
        Path("/etc/debian_version").exists()
        and hasattr(os, "geteuid")
        and os.geteuid() == 0
        and shutil.which("apt-get") is not None
    )


def install(package: str) -> None:
    """apt-get, without letting the package start its service."""
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    with _installing, _no_services():
        result = _run([*command, "install", package])
        if result.returncode:  # the package lists may be old, or not there at all
            _run([*command, "update"])
            result = _run([*command, "install", package])
    if result.returncode:
        words = " ".join(result.stdout.split())[-200:]
        raise ServerUnavailable(f"apt-get install {package} failed: …{words}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # RUNLEVEL=1 keeps services down where there is no systemd, the policy where there is.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=INSTALL_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def _no_services(policy: Path = _POLICY) -> Iterator[None]:
    """Forbid starts of services while it lasts; then the machine's policy is as it was."""
    if policy.exists() and subprocess.run([policy, "x", "start"], check=False).returncode == _FORBIDS:
        yield  # forbidden already, as in containers
        return
    kept = policy.with_name(policy.name + ".broker-profiles")
    with contextlib.suppress(FileNotFoundError):
        policy.rename(kept)
    try:
        policy.write_text(f"#!/bin/sh\nexit {_FORBIDS}\n")
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            kept.rename(policy)


def _newest_first(pattern: str) -> list[str]:
    def version(folder: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", folder)]

    return sorted(glob.glob(pattern), key=version, reverse=True)  # noqa: PTH207 - an absolute pattern
