"""Every system in every way that this machine has: faults, durability, nothing left behind."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import server_records as records
from server_ways import WAYS, Have

from broker_profiles.comparison.servers import FaultRefused, Server, ServerUnavailable, provide
from broker_profiles.comparison.servers.containers import ContainerServer
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


def test_the_processes_of_a_server_do_not_run_as_root(have: Have) -> None:
    server = have("process", "postgresql")
    assert isinstance(server, ProcessServer)
    mine = [thing for thing in _things(server) if isinstance(thing, psutil.Process)]
    root = [p for p in mine if str(server.folder) in p.cmdline() and p.uids().real == 0]
    assert root == []


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
