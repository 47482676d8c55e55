"""A column's host leads processes to the servers, through links."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker_profiles.comparison import column as module
from broker_profiles.comparison.column import FULL, Column, Host, hosted, parse
from broker_profiles.comparison.servers import ServerUnavailable, choose, description
from tests.unit.greeter import Greeter, greeting


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Greeter]]:
    """The servers that were asked for."""
    servers: list[Greeter] = []

    def provide(system: str, environ: Mapping[str, str]) -> Greeter:
        servers.append(Greeter(system, environ))
        return servers[-1]

    monkeypatch.setattr(module, "provide", provide)
    yield servers
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("rabbitmq", {"RABBITMQ_URL": "rabbitmq"}),
        ("redis", {"REDIS_URL": "redis", "RESULT_REDIS_URL": "redis"}),
        ("postgresql", {"DATABASE_URL": "postgresql", "RESULT_DATABASE_URL": "postgresql"}),
        ("redis+postgresql", {"REDIS_URL": "redis", "RESULT_DATABASE_URL": "postgresql"}),
        ("rabbitmq+redis", {"RABBITMQ_URL": "rabbitmq", "RESULT_REDIS_URL": "redis"}),
        ("embedded+redis", {"RESULT_REDIS_URL": "redis"}),
        ("redis+none", {"REDIS_URL": "redis"}),
        ("stock-rabbitmq", {"RABBITMQ_URL": "rabbitmq"}),
        ("stock-sqlalchemy", {"DATABASE_URL": "postgresql"}),
        ("embedded", {}),
    ],
)
def test_processes_are_led_to_the_servers(name: str, variables: dict[str, str], made: list[Greeter]) -> None:
    with hosted(parse(name), {}) as host:
        assert sorted(server.system for server in made) == sorted(set(variables.values()))
        for direct in (False, True):
            found = host.variables(direct=direct)
            assert found.pop("BROKER_PROFILE") == name
            assert {variable: greeting(url) for variable, url in found.items()} == variables
            # Whatever else an address says stays as it is.
            for url in found.values():
                parts, wanted = urlsplit(url), [urlsplit(server.url) for server in made]
                assert (parts.scheme, parts.username, parts.password, parts.path, parts.query) in [
                    (one.scheme, one.username, one.password, one.path, one.query) for one in wanted
                ]
                assert (parts.netloc in [one.netloc for one in wanted]) is direct


@pytest.mark.parametrize("name", [name for name in FULL if name != "embedded"])
def test_a_cut_of_the_broker_is_felt_on_the_way_to_the_broker(name: str, made: list[Greeter]) -> None:
    """For a network fault that the processes do not feel would be a promise kept by mistake."""
    with hosted(parse(name), {}) as host:
        profile = host.column.profile
        url = host.variables()[module.address_variable(profile.broker.address)]
        assert greeting(url)
        assert host.broker_link is not None
        host.broker_link.cut()
        assert not greeting(url)
        host.heal()
        assert greeting(url)


@pytest.mark.parametrize("name", ["redis", "postgresql", "mongodb", "stock-redis", "rabbitmq+redis"])
def test_the_results_can_be_cut_alone(name: str, made: list[Greeter]) -> None:
    with hosted(parse(name), {}) as host:
        profile, variables = host.column.profile, host.variables()
        assert host.results_link is not None
        host.results_link.cut()
        assert greeting(variables[module.address_variable(profile.broker.address)])
        assert not greeting(variables["RESULT_" + module.address_variable(profile.results.address)])


def test_an_image_is_that_of_the_broker_alone(made: list[Greeter]) -> None:
    environ = {"PATH": "/bin", "BROKER_PROFILES_POSTGRESQL_IMAGE": "postgres:16"}
    with hosted(parse("redis+postgresql@valkey/valkey:8"), environ):
        by_system = {server.system: server.environ for server in made}
        redis_variable = description.load("redis").image_variable
        way = {choose.VARIABLE: "container"}
        assert by_system["redis"] == {**environ, **way, redis_variable: "valkey/valkey:8"}
        assert by_system["postgresql"] == environ


def test_only_a_container_is_of_an_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a server that runs already nor a native process may be shown as one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    host = Host(parse("redis@valkey/valkey:8"), {"REDIS_URL": "redis://127.0.0.1:1/0"})
    with pytest.raises(ServerUnavailable, match="no container engine answers"):
        host.start()
    assert not host.servers


@pytest.mark.parametrize("way", ["url", "process"])
def test_an_image_and_another_way_than_a_container_exclude_each_other(way: str, made: list[Greeter]) -> None:
    host = Host(parse("redis@valkey/valkey:8"), {choose.VARIABLE: way})
    with pytest.raises(ServerUnavailable, match=f"valkey/valkey:8 is a container's, and .* is '{way}'"):
        host.start()
    assert not made


# -- servers of somebody else -----------------------------------------------------------------------


@pytest.fixture
def foreign(made: list[Greeter], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that has every server be somebody else's, at an address."""
    had: Any = module.provide

    def at(url: str) -> None:
        def provide(system: str, environ: Mapping[str, str]) -> Greeter:
            server: Greeter = had(system, environ)
            server.owned, server.url = False, url or server.url
            return server

        monkeypatch.setattr(module, "provide", provide)

    return at


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("redis", "rediss://u:secret@h:6380/0", "TLS"),
        ("rabbitmq", "amqps://u:secret@h/v", "TLS"),
        ("mongodb", "mongodb://u:secret@h/d?tls=true", "TLS"),
        ("postgresql", "postgresql://u:secret@h/d?sslmode=verify-full&sslrootcert=/ca", "TLS"),
        ("mysql", "mysql://u:secret@h/d?ssl_ca=/ca", "TLS"),
        ("mongodb", "mongodb+srv://u:secret@cluster.example/d", "DNS"),
        ("mongodb", "mongodb://u:secret@h/d?replicaSet=rs0", "replica set"),
        ("mongodb", "mongodb://u:secret@a:1,b:2/d", "several hosts"),
        ("postgresql", "postgresql://u:secret@a:1,b:2/d", "several hosts"),
        ("rabbitmq", "amqp://u:secret@a//;amqp://u:secret@b//", "several hosts"),
        ("postgresql", "postgresql://u:secret@/d?host=/run/postgresql", "no host"),
    ],
)
def test_an_address_that_a_link_cannot_stand_for_is_refused(
    name: str, url: str, says: str, made: list[Greeter], foreign: Callable[[str], None]
) -> None:
    """Behind the link no worker would get ready, and the report would call that a broken promise."""
    foreign(url)
    with pytest.raises(ServerUnavailable) as raised, hosted(parse(name), {}):
        pytest.fail("not reached")
    variable = description.load(name).url_variable
    said = str(raised.value)
    assert said.startswith(f"{variable} ")
    assert says in said
    assert "secret" not in said
    assert "\n" not in said
    assert [server.closed for server in made] == [1]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis", "redis://u:se,cret@h:6379/0"),
        ("postgresql", "postgresql://u:p@h/d?sslmode=require"),
        ("mongodb", "mongodb://h/d?tls=false"),
        ("rabbitmq", "pyamqp://u:p@h//"),
    ],
)
def test_one_plain_address_is_taken(name: str, url: str, foreign: Callable[[str], None]) -> None:
    foreign(url)
    with hosted(parse(name), {}) as host:
        assert not host.owned


def test_a_server_of_ours_may_have_any_address(made: list[Greeter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greeter, "url_with", lambda self, account: "rediss://127.0.0.1:1/0")
    with hosted(parse("redis"), {}) as host:
        assert host.owned


def test_a_replica_set_does_not_lead_its_clients_past_the_link(made: list[Greeter]) -> None:
    with hosted(parse("mongodb"), {}) as host:
        assert urlsplit(host.variables()["MONGODB_URL"]).query == "option=1&directConnection=true"
        assert urlsplit(host.variables(direct=True)["MONGODB_URL"]).query == "option=1"


@pytest.mark.parametrize("name", FULL)
def test_only_kombus_keys_in_a_redis_of_others_get_a_prefix(
    name: str, made: list[Greeter], foreign: Callable[[str], None]
) -> None:
    column = Column(parse(name).profile)
    with hosted(column, {}) as host:
        assert not host.keys("bp-1") and not reported_keys(host)
    foreign("")
    with hosted(column, {}) as host:
        shared = name == "stock-redis"
        assert host.keys("bp-1") == ("bp-1:" if shared else "")
        wanted = [{"global_keyprefix": "PREFIX-OF-THE-CASE:"}] * 2
        assert reported_keys(host) == (wanted if shared else [])


def reported_keys(host: Host) -> list[Any]:
    return [one.value for one in host.settings() if "global_keyprefix" in str(one.value)]


def test_an_address_without_an_account_stays_without_one(made: list[Greeter]) -> None:
    with hosted(parse("redis"), {}) as host:
        made[0].url = made[0].url_with("")
        assert "@" not in host.variables()["REDIS_URL"]


def test_a_host_heals_and_closes_what_it_has(made: list[Greeter]) -> None:
    host = Host(parse("redis+postgresql"), {})
    assert not host.started
    host.start()
    assert host.started and host.owned
    assert [(one["system"], one["version"], one["how"]) for one in host.describe()] == [
        ("redis", "1.0", "container"),
        ("postgresql", "1.0", "container"),
    ]
    host.heal()
    assert [server.healed for server in made] == [1, 1]
    made[1].owned = False
    assert not host.owned
    urls = [url for name, url in host.variables().items() if name.endswith("_URL")]
    host.close()
    host.close()
    assert [server.closed for server in made] == [1, 1]
    assert list(map(greeting, urls)) == ["", ""]
    assert not host.started
    host.start()
    assert len(made) == 4
    host.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "link"]


def test_what_was_started_is_closed_though_the_next_cannot_be_had(
    made: list[Greeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    had: Any = module.provide

    def provide(system: str, environ: Mapping[str, str]) -> Greeter:
        if system == "postgresql":
            raise ServerUnavailable("none here")
        server: Greeter = had(system, environ)
        return server

    monkeypatch.setattr(module, "provide", provide)
    with pytest.raises(ServerUnavailable), hosted(parse("redis+postgresql"), {}):
        pytest.fail("not reached")
    assert [server.closed for server in made] == [1]
