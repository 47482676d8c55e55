"""Every system in every way that this machine has: faults, durability, nothing left behind."""

from __future__ import annotations

import contextlib
import re
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import server_records as records
from amqp.exceptions import PreconditionFailed
from kombu import Connection
from server_ways import WAYS, Have

from broker_profiles.comparison.servers import FaultRefused, Server, ServerUnavailable, provide
from broker_profiles.comparison.servers.containers import ContainerServer
from broker_profiles.comparison.servers.description import Tables
from broker_profiles.comparison.servers.processes import ProcessServer


def test_it_is_described_without_its_password(server: Server) -> None:
    password = urlsplit(server.url).password
    assert password
    assert len(password) >= 32
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert server.owned
    assert server.version[0].isdigit()
    assert server.describe().startswith(f"{server.system} {server.version} ({server.how} ")
    for text in (server.describe(), repr(server), str(server)):
        assert password not in text


def test_a_record_survives_kill_and_start(server: Server) -> None:
    url = server.url
    records.write(server.system, url, "before the kill")
    server.kill()
    with pytest.raises(ServerUnavailable, match=r"it ended|has ended|no answer"):
        server.wait_ready(0.2)
    server.kill()  # once more: nothing to do
    server.start()
    assert server.url == url
    assert records.read(server.system, url) == "before the kill"


def test_a_record_survives_stop_and_start(server: Server) -> None:
    records.write(server.system, server.url, "before the stop")
    server.stop()
    with pytest.raises(FaultRefused, match="stopped"):
        server.pause()
    server.start()
    assert records.read(server.system, server.url) == "before the stop"


def test_a_pause_is_silence_and_resume_heals(server: Server) -> None:
    records.write(server.system, server.url, "before the pause")
    server.pause()
    began = time.monotonic()
    with pytest.raises(Exception, match=r".") as caught:
        server.description.probe(server.url, 0.5)
    took = time.monotonic() - began
    assert 0.4 < took < 10, f"it did not hang but failed: {caught.value!r}"
    with pytest.raises(FaultRefused, match="paused"):
        server.start()
    server.resume()
    assert records.read(server.system, server.url) == "before the pause"


def test_it_counts_its_records(server: Server) -> None:
    records.write(server.system, server.url, "counted")
    held = server.stored()
    assert held >= 1
    records.remove(server.system, server.url)
    assert server.stored() == held - 1
    records.write(server.system, server.url, "counted again")
    assert server.stored() == held


def test_every_kind_of_key_is_counted_by_its_elements(have: Have) -> None:
    import redis

    server = have("process", "redis")
    assert server.stored() == 0
    with redis.Redis.from_url(server.url) as client:
        client.set("string", "abc")
        client.rpush("list", "a", "a", "b")
        client.sadd("set", *"abcd")
        client.zadd("sorted set", {"a": 1, "b": 1})
        client.hset("hash", mapping={"a": 1, "b": 2})
        client.xadd("stream", {"a": 1})
        assert server.stored() == 1 + 3 + 4 + 2 + 2 + 1
        client.mset({f"key-{number}": "" for number in range(5000)})
        assert server.stored() == 13 + 5000


@pytest.mark.parametrize("way", ["container", "process"])
def test_rabbitmq_takes_back_what_is_not_acknowledged_in_time(way: str, have: Have) -> None:
    server = have(way, "rabbitmq")
    patient = server.acknowledge_within(2.0)
    assert patient is not None
    # By py-amqp: for `amqp` kombu takes the package librabbitmq where it is installed, which cannot do this.
    url = server.url.replace("amqp", "pyamqp", 1)
    with Connection(url) as connection, connection.channel() as channel:
        channel.queue_declare("impatient", durable=True, auto_delete=False)
        channel.basic_publish(channel.prepare_message(b"x"), "", "impatient")
        channel.basic_consume("impatient", callback=lambda message: None)
        with pytest.raises(PreconditionFailed, match=r"acknowledgement .* timed out"):
            connection.drain_events(timeout=10)
            connection.drain_events(timeout=10)
    patient()
    said = server.run("rabbitmqctl", "eval", "application:get_env(rabbit, consumer_timeout).")
    assert said.strip() == "{ok,1800000}"


@pytest.mark.parametrize("way", ["container", "process"])
def test_rabbitmq_looks_again_for_a_route_as_soon_as_ours_is_told_to(way: str, have: Have) -> None:
    file = Path(__file__).parents[2] / "config" / "rabbitmq" / "advanced.config"
    name = "dead_letter_worker_publisher_confirm_timeout"
    (told,) = re.findall(rf"{{{name}, (\d+)}}", file.read_text())
    said = have(way, "rabbitmq").run("rabbitmqctl", "eval", f"application:get_env(rabbit, {name}).")
    assert said.strip() == f"{{ok,{told}}}"


def test_others_take_nothing_back_by_themselves(have: Have) -> None:
    assert have("process", "redis").acknowledge_within(1.0) is None


def test_a_paused_server_can_be_killed(server: Server) -> None:
    records.write(server.system, server.url, "before the kill in a pause")
    server.pause()
    server.kill()
    server.heal()
    assert records.read(server.system, server.url) == "before the kill in a pause"


def test_a_paused_server_can_be_stopped(server: Server) -> None:
    records.write(server.system, server.url, "before the stop in a pause")
    server.pause()
    server.stop()
    server.heal()
    assert records.read(server.system, server.url) == "before the stop in a pause"


@pytest.mark.parametrize("system", ["postgresql", "mysql"])
def test_a_full_disk_takes_no_more_and_loses_nothing(system: str, have: Have) -> None:
    server = have("container", system)
    assert isinstance(server, ContainerServer)
    records.write(system, server.url, "before the disk was full")
    kept = 1
    for die in (server.kill, server._testcontainer.get_wrapped_container().kill):
        give_back = server.fill()
        assert give_back is not None
        assert server.disk_full
        with pytest.raises(Exception, match=r"No space left on device|is full"):
            for _ in range(1000):
                records.add(system, server.url, "x" * 100)
                kept += 1
        die()  # the second time as if by itself
        server.kill()
        server.start()
        assert records.count(system, server.url) == kept
        server.heal()
        give_back()
        assert not server.disk_full
        assert records.count(system, server.url) == kept
        records.add(system, server.url, "there is room again")
        kept += 1
    server.kill()  # with nothing left where the tables were
    server.start()
    assert records.count(system, server.url) == kept


@pytest.mark.slow
def test_a_database_that_dies_of_a_full_disk_comes_back(have: Have) -> None:
    """MariaDB 11 cannot take back a part of a large value without room for it, nor start again then."""
    server = have("container", "mysql")
    records.write("mysql", server.url, "before the disk was full")
    with closing(records.connect("mysql", server.url)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE large (body LONGBLOB)")
    give_back = server.fill()
    assert give_back is not None
    with (
        closing(records.connect("mysql", server.url)) as connection,
        connection.cursor() as cursor,
        pytest.raises(Exception, match=r"Lost connection|is full"),
    ):
        cursor.execute("INSERT INTO large VALUES (repeat('x', 200000))")
    server.kill()
    server.start()
    assert records.count("mysql", server.url) == 1
    server.heal()
    give_back()
    records.add("mysql", server.url, "there is room again")
    assert records.count("mysql", server.url) == 2


@pytest.mark.parametrize(("way", "system"), [("process", "postgresql"), ("container", "mysql")])
def test_where_no_disk_can_be_filled_a_database_is_read_only(
    way: str, system: str, have: Have, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = have(way, system)
    records.write(system, server.url, "before")
    if way == "container":
        monkeypatch.setattr(type(server.description.tables), "move", _unable)
    give_back = server.fill()
    assert give_back is not None
    assert not server.disk_full
    with pytest.raises(Exception, match=r"read.only"):
        records.add(system, server.url, "while it is read only")
    give_back()
    records.add(system, server.url, "after")
    assert records.count(system, server.url) == 2


def _unable(tables: Tables, server: Server, folder: str) -> None:
    if folder:
        raise ServerUnavailable("its tables cannot be moved")


@pytest.mark.parametrize(("way", "system"), WAYS)
def test_close_leaves_nothing_behind(way: str, system: str, have: Have) -> None:
    before = psutil.Process().children(recursive=True)
    server = have(way, system)
    things = [thing for thing in _things(server) if thing not in before]
    # One that lasts a moment, such as the process of the last question, may be gone already.
    assert any(_exists(thing) for thing in things)
    server.pause()  # the hardest state to close from
    server.close()
    server.close()
    assert [thing for thing in things if _exists(thing)] == []
    with pytest.raises(FaultRefused, match="closed"):
        server.start()
    with pytest.raises(FaultRefused, match="closed"):
        server.stored()


def test_the_processes_of_a_server_do_not_run_as_root(have: Have) -> None:
    server = have("process", "postgresql")
    assert isinstance(server, ProcessServer)
    users = {process: user for process in _processes(server) if (user := _user(process)) is not None}
    assert users
    assert [process for process, user in users.items() if user == 0] == []


def _processes(server: ProcessServer) -> list[psutil.Process]:
    """Return the processes that the server's folder is named to, and what they have started."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(str(server.folder) in word for word in process.cmdline()):
                found += [process, *process.children(recursive=True)]
    return found


def _user(process: psutil.Process) -> int | None:
    """Return whom a process runs as, none where it has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.uids().real)
    return None


class TestUrl:
    def test_it_is_used_and_never_harmed(self, have: Have) -> None:
        ours = have("process", "redis")
        with_url = provide("redis", {"REDIS_URL": ours.url})
        assert with_url.how == "url"
        assert not with_url.owned
        assert with_url.describe() == f"redis {ours.version} (url REDIS_URL)"
        for fault in ("kill", "stop", "start", "pause", "resume"):
            with pytest.raises(FaultRefused, match=f"cannot {fault} .*unset REDIS_URL"):
                getattr(with_url, fault)()
        with pytest.raises(FaultRefused, match=r"cannot count the records of .*unset REDIS_URL"):
            with_url.stored()
        with pytest.raises(FaultRefused, match=r"cannot shorten the timeouts of .*unset REDIS_URL"):
            with_url.acknowledge_within(1.0)
        with_url.close()
        ours.wait_ready(5)

    def test_every_system_can_be_had_so(self, server: Server) -> None:
        variable = server.description.url_variable
        with_url = provide(server.system, {variable: server.url})
        assert (with_url.how, with_url.version) == ("url", server.version)

    def test_it_can_be_in_a_file(self, have: Have, tmp_path: Any) -> None:
        ours = have("process", "redis")
        file = tmp_path / "url"
        file.write_text(ours.url + "\n")
        assert provide("redis", {"REDIS_URL_FILE": str(file)}).url == ours.url

    def test_a_wrong_password_is_told_without_it(self, have: Have, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("broker_profiles.comparison.servers.external.ANSWER_SECONDS", 0.3)
        ours = have("process", "redis")
        url = f"redis://:not%2Fthe-one@127.0.0.1:{urlsplit(ours.url).port}/0"
        with pytest.raises(ServerUnavailable) as caught:
            provide("redis", {"REDIS_URL": url})
        text = str(caught.value)
        assert text.splitlines()[0] == "no redis server:"
        assert len(text.splitlines()) == 2, "another way was tried, though a server is named"
        assert "url REDIS_URL" in text
        assert "the-one" not in text
        assert caught.value.__cause__ is None


def _things(server: Server) -> list[Any]:
    """Everything on this machine that exists because of the server."""
    if isinstance(server, ContainerServer):
        container = server._testcontainer.get_wrapped_container()
        assert container.labels["broker-profiles"] == "test"
        assert container.labels["org.testcontainers"] == "true"
        volumes = [mount["Name"] for mount in container.attrs["Mounts"] if mount["Type"] == "volume"]
        return [("container", server.name), *(("volume", volume) for volume in volumes)]
    assert isinstance(server, ProcessServer)
    processes = psutil.Process().children(recursive=True)
    if server.system == "rabbitmq":
        assert "epmd" in {process.name() for process in processes}
    return [server.folder, *processes]


def _exists(thing: Any) -> bool:
    if isinstance(thing, tuple):
        import docker  # type: ignore[import-untyped, unused-ignore]
        from docker.errors import NotFound  # type: ignore[import-untyped, unused-ignore]

        client = docker.from_env()
        kind, name = thing
        try:
            (client.containers if kind == "container" else client.volumes).get(name)
        except NotFound:
            return False
        finally:
            client.close()
        return True
    if isinstance(thing, psutil.Process):
        return thing.is_running() and thing.status() != psutil.STATUS_ZOMBIE
    return bool(thing.exists())
