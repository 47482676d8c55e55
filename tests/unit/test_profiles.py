"""Names, guarantees and settings of profiles, without any server."""

from __future__ import annotations

import itertools
import socket

import pytest
from celery import Celery
from kombu import Connection

from broker_profiles import configure, load
from broker_profiles.errors import (
    ConfigurationError,
    MalformedProfile,
    UnknownProfile,
    UnsupportedCombination,
)
from broker_profiles.profile import CONTRACT, Guarantees, Mode, Profile
from broker_profiles.registry import BROKERS, RESULT_STORES, find_broker, resolve
from broker_profiles.settings import Environment


def every_profile() -> list[Profile]:
    found = []
    for broker, results in itertools.product(BROKERS, RESULT_STORES):
        for mode in find_broker(broker).guarantees:
            try:
                found.append(resolve(f"{broker}:{mode}+{results}"))
            except UnsupportedCombination:
                continue
    return found


@pytest.mark.parametrize(
    ("name", "broker", "mode", "results"),
    [
        ("embedded", "embedded", Mode.DURABLE, "embedded"),
        ("redis", "redis", Mode.DURABLE, "redis"),
        ("redis:fast+mysql", "redis", Mode.FAST, "mysql"),
        ("rabbitmq", "rabbitmq", Mode.DURABLE, "rpc"),
        ("rabbitmq+none", "rabbitmq", Mode.DURABLE, "none"),
        (" REDIS ", "redis", Mode.DURABLE, "redis"),
        ("stock-redis", "stock-redis", Mode.STOCK, "stock-redis"),
        ("memory", "memory", Mode.DURABLE, "memory"),
    ],
)
def test_names(name: str, broker: str, mode: Mode, results: str) -> None:
    profile = load(name)
    assert (profile.broker.name, profile.mode, profile.results.name) == (broker, mode, results)


@pytest.mark.parametrize("profile", every_profile(), ids=str)
def test_every_profile_has_a_name_and_accounts_for_the_whole_contract(profile: Profile) -> None:
    assert resolve(profile.name) == profile
    guarantees = profile.guarantees
    for id_ in CONTRACT:
        assert guarantees.holds(id_) or guarantees.not_offered.get(id_), f"{id_} has no reason"
        assert bool(guarantees.reason(id_)) is not guarantees.holds(id_)


@pytest.mark.parametrize("profile", every_profile(), ids=str)
def test_settings_come_without_input_or_output(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no connection may be made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    settings = profile.settings(Environment({}))
    assert len({setting.name for setting in settings}) == len(settings)
    for setting in settings:
        assert setting.reason, setting.name
        assert setting.source, setting.name
    assert {"broker_url", "result_backend"} <= {setting.name for setting in settings}


def test_celery_knows_every_setting() -> None:
    from celery.app.defaults import NAMESPACES, flatten

    # Read by Celery's Redis results, but missing in its table of options.
    known = {"redis_backend_health_check_interval", *(name for name, _ in flatten(NAMESPACES))}
    for profile in every_profile():
        unknown = {setting.name for setting in profile.settings(Environment({}))} - known
        assert not unknown, profile.name


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("rabitmq", UnknownProfile, "Did you mean 'rabbitmq'?"),
        ("redis+postgres", UnknownProfile, "Did you mean 'postgresql'?"),
        ("redis:fsat", UnknownProfile, "Did you mean 'fast'?"),
        ("embedded:fast", UnknownProfile, "embedded has: durable."),
        ("redis::fast", MalformedProfile, "BROKER[:MODE][+RESULTS]"),
        ("redis+", MalformedProfile, "BROKER[:MODE][+RESULTS]"),
        ("redis+rpc", UnsupportedCombination, "over RabbitMQ"),
        ("redis+memory", UnsupportedCombination, "no other process"),
    ],
)
def test_bad_names(name: str, error: type[ConfigurationError], says: str) -> None:
    with pytest.raises(error) as caught:
        load(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_the_environment_names_the_profile() -> None:
    assert load(environ={}).name == "embedded"
    assert load(environ={"BROKER_PROFILE": "redis:fast"}).name == "redis:fast"


def test_a_guarantee_cannot_be_both_kept_and_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        Guarantees(kept=frozenset({"DEL-1"}), not_offered={"DEL-1": "no"})
    with pytest.raises(ValueError, match="contract"):
        Guarantees(kept=frozenset({"DEL-99"}))


@pytest.mark.parametrize(
    ("version", "kept"),
    [("3.10.8", False), ("3.11", False), ("3.12.0", True), ("4.0.5", True), ("4.1.0-rc.1", True), ("", True)],
)
def test_a_promise_may_need_a_version_of_the_server(version: str, kept: bool) -> None:
    guarantees = Guarantees(kept=frozenset({"DEL-4"}), since={"DEL-4": ((3, 12), "it cannot before")})
    found = guarantees.on(version)
    assert found.holds("DEL-4") is kept
    assert found.reason("DEL-4") == ("" if kept else "it cannot before")


OVER_AMQP = [profile for profile in every_profile() if profile.broker.address == "rabbitmq"]


@pytest.mark.parametrize("profile", OVER_AMQP, ids=str)
def test_rabbitmq_is_always_py_amqp(profile: Profile) -> None:
    environment = Environment({"RABBITMQ_URL": "amqp://u:p@a//;amqp://u:p@b//"})
    values = {s.name: s.value for s in profile.settings(environment)}
    assert values["broker_url"] == "pyamqp://u:p@a//;pyamqp://u:p@b//"


@pytest.mark.parametrize("profile", OVER_AMQP, ids=str)
def test_no_profile_gets_the_package_librabbitmq_where_it_is_installed(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("librabbitmq")
    theirs = "kombu.transport.librabbitmq"
    assert Connection("amqp://").get_transport_cls().__module__ == theirs
    for address in ("amqp://u:p@a//", "amqps://u:p@a//", "amqp://u:p@a//;amqp://u:p@b//"):
        monkeypatch.setenv("RABBITMQ_URL", address)
        app = Celery("chosen", set_as_current=False)
        configure(app, profile=profile.name)
        for connection in (app.connection_for_read(), app.connection_for_write()):
            assert connection.get_transport_cls().__module__ != theirs
            assert "librabbitmq://" not in connection.as_uri()
