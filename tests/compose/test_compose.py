"""The compose files, on a real engine: up, work, a restart of the broker under it, more workers, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.compose.project import (
    CommandFailed,
    Project,
    generate_secrets,
    service_of,
    why_no_engine,
)
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILES = {"rabbitmq": "docker-compose.rabbitmq.yml", "redis": "docker-compose.redis.yml"}
LOAD = Path(__file__).with_name("load.py")
NUMBER = 200
OURS = {"worker", "beat", "flower"}


def _cannot(reason: str) -> NoReturn:
    """Skip; in CI, where somebody counts on this test, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture(scope="module", params=FILES)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A compose file that is up and healthy; gone afterwards, whatever happens."""
    reason = why_no_engine()
    if reason:
        pytest.skip(reason)
    secrets = tmp_path_factory.mktemp("secrets")
    generate_secrets(secrets)
    project = Project(FILES[request.param], secrets)
    missing = project.missing_images()
    if missing:
        _cannot(f"these images are not here: {', '.join(missing)}")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        project.build()
        project.up()
        yield project
    finally:
        project.down()
        signal.signal(signal.SIGTERM, before)
    assert project.leftovers() == []


@pytest.fixture(scope="module")
def broker(project: Project) -> str:
    """The service that carries the tasks."""
    return "rabbitmq" if "RABBITMQ_PORT" in project.ports else "redis"


def test_every_container_is_healthy_and_confined(project: Project, broker: str) -> None:
    containers = project.containers()
    results = {"postgresql"} if broker == "rabbitmq" else set()
    assert sorted(map(service_of, containers)) == sorted({broker} | results | OURS)
    for container in containers:
        service, host = service_of(container), container["HostConfig"]
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Init"], service
        assert host["Memory"] > 0, service
        assert host["NanoCpus"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["LogConfig"]["Config"]["max-size"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        bindings = [each for ports in (host["PortBindings"] or {}).values() for each in ports]
        assert {each["HostIp"] for each in bindings} <= {"127.0.0.1"}, service
    # Whoever can ask the engine, or read a process list, does not learn a password.
    assert _passwords_in(project, json.dumps(containers)) == []


@pytest.mark.parametrize("service", sorted(OURS))
def test_ours_run_as_nobody_special(project: Project, service: str) -> None:
    assert project.compose("exec", "-T", service, "id", "-u").strip() == "10001"


REDIS = ("sh", "-c", 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli --raw config get "$0"')
MEMORY_BOUND = {
    "rabbitmq": ("rabbitmqctl", "eval", "vm_memory_monitor:get_memory_limit()."),
    "redis": (*REDIS, "maxmemory"),
}
#: What only the file of the server's configuration says, and how the server is asked for it.
CONFIGURED = {
    "rabbitmq": (
        *("rabbitmqctl", "eval"),
        "application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout).",
    ),
    "redis": (*REDIS, "appendonly"),
}
SAID = {"rabbitmq": "{ok,10000}", "redis": "yes"}


def test_the_broker_refuses_before_it_is_killed(project: Project, broker: str) -> None:
    """Its own bound of memory is below that of its container."""
    said = project.compose("exec", "-T", broker, *MEMORY_BOUND[broker])
    (container,) = project.containers(broker)
    assert 0 < int(said.split()[-1]) < container["HostConfig"]["Memory"]


def test_the_broker_is_configured_as_its_profile_needs_it(project: Project, broker: str) -> None:
    said = project.compose("exec", "-T", broker, *CONFIGURED[broker])
    assert said.split()[-1] == SAID[broker]


def test_work_survives_a_restart_of_the_broker(project: Project, broker: str) -> None:
    (before,) = project.containers(broker)
    script = LOAD.read_text(encoding="utf-8")
    with project.start_compose("exec", "-T", "worker", "python", "-c", script, str(NUMBER), "180") as load:
        try:
            assert load.stdout is not None
            assert load.stdout.readline() == "half\n", load.communicate(timeout=10)[1][-4000:]
            project.compose("restart", broker)
            out, errors = load.communicate(timeout=240)
        finally:
            load.kill()
    assert load.returncode == 0, errors[-4000:] + project.last_logs()
    (after,) = project.containers(broker)
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    report = json.loads(out)
    wrong = {
        task_id: report["results"].get(task_id)
        for task_id, expected in report["expected"].items()
        if report["results"].get(task_id) != expected
    }
    assert wrong == {}, project.last_logs()
    assert len(report["results"]) == NUMBER + 1
    assert report["results"][report["chord"]] == 210
    project.up("--no-recreate")


def test_flower_asks_for_its_password(project: Project) -> None:
    password = project.passwords["flower_password"]
    assert project.flower("/healthcheck") == 200
    for path in ("/", "/workers", "/tasks", "/api/workers"):
        assert project.flower(path) == 401, path
        assert project.flower(path, "celery:wrong") == 401, path
        assert project.flower(path, f"celery:{password}") == 200, path


def test_workers_scale(project: Project) -> None:
    project.up("--no-recreate", "--scale", "worker=2")
    nodes = {f"celery@{each['Config']['Hostname']}" for each in project.containers("worker")}
    assert len(nodes) == 2

    def answering() -> set[str]:
        try:
            ping = ("celery", "--app=tasks", "inspect", "--json", "ping")
            return set(json.loads(project.compose("exec", "-T", "worker", *ping)))
        except CommandFailed:
            return set()

    until(lambda: answering() == nodes, 60, f"all of {nodes} answer")


def test_workers_stop_within_their_grace(project: Project) -> None:
    project.compose("stop", "worker")
    codes = {each["Id"][:12]: each["State"]["ExitCode"] for each in project.containers("worker")}
    assert len(codes) >= 1
    # 137: killed, for it did not end by itself.
    assert set(codes.values()) <= {0, 1}, codes
    project.up("--no-recreate")


def test_no_password_is_in_the_logs(project: Project) -> None:
    logs = project.compose("logs", "--no-color")
    assert {service_of(each) for each in project.containers()} >= OURS
    assert "celery@" in logs
    assert _passwords_in(project, logs) == []


@pytest.mark.parametrize("file", FILES.values())
def test_without_passwords_nothing_starts(file: str, tmp_path: Path) -> None:
    reason = why_no_engine()
    if reason:
        pytest.skip(reason)
    project = Project(file, tmp_path)
    del project.environ["BROKER_PROFILES_SECRETS"]
    with pytest.raises(CommandFailed, match=r"sh config/compose/secrets\.sh"):
        project.compose("up", "--detach")
    assert project.leftovers() == []


@pytest.mark.parametrize("file", FILES.values())
def test_the_file_is_valid_and_its_passwords_are_elsewhere(file: str, tmp_path: Path) -> None:
    reason = why_no_engine()
    if reason:
        pytest.skip(reason)
    generate_secrets(tmp_path)
    project = Project(file, tmp_path)
    done = subprocess.run(project.command("config"), env=project.environ, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert _passwords_in(project, done.stdout) == []


def _passwords_in(project: Project, text: str) -> list[str]:
    return [name for name, password in project.passwords.items() if password in text]
