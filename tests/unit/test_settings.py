"""The environment: tuning, addresses, secrets, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from broker_profiles import configure
from broker_profiles.errors import (
    AmbiguousSetting,
    BrokerProfilesError,
    ConflictingSetting,
    InvalidSetting,
    MalformedURL,
    MissingDriver,
    UnknownSetting,
    UnreadableSecret,
    redact,
)
from broker_profiles.options import OPTIONS
from broker_profiles.settings import Environment

SECRET = "s3cr3t-w0rd"


def test_tuning_is_typed() -> None:
    environment = Environment({"BROKER_PROFILE_LEASE_SECONDS": "2.5", "BROKER_PROFILE_DELIVERY_LIMIT": "7"})
    assert environment.number("lease_seconds") == 2.5
    assert environment.whole("delivery_limit") == 7
    assert environment.source("lease_seconds") == "BROKER_PROFILE_LEASE_SECONDS"
    assert environment.source("shutdown_seconds") == ""


@pytest.mark.parametrize("name", OPTIONS)
def test_defaults_are_within_their_own_bounds(name: str) -> None:
    option = OPTIONS[name]
    # An empty text is how an option says that it is off; nobody has to write that down.
    assert option.default == "" or option.parse(str(option.default)) == option.default


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BROKER_PROFILE_LEASE_SECONDS", "0", "from 1 to 3600"),
        ("BROKER_PROFILE_LEASE_SECONDS", "ten", "a number"),
        ("BROKER_PROFILE_LEASE_SECONDS", "nan", "a number"),
        ("BROKER_PROFILE_DELIVERY_LIMIT", "2.5", "a whole number"),
        ("BROKER_PROFILE_SQLITE_SYNCHRONOUS", "OFF", "one of NORMAL, FULL"),
        ("BROKER_PROFILE_EMBEDDED_PATH", " ", "not empty"),
    ],
)
def test_values_out_of_bounds(variable: str, value: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=says) as caught:
        Environment({variable: value})
    assert variable in str(caught.value)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownSetting, match="Did you mean 'BROKER_PROFILE_LEASE_SECONDS'"):
        Environment({"BROKER_PROFILE_LEASE_SECOND": "3"})


@pytest.mark.parametrize(
    ("kind", "variable", "url", "says"),
    [
        ("redis", "REDIS_URL", f"redis//:{SECRET}@host", "no scheme"),
        ("redis", "REDIS_URL", f"amqp://:{SECRET}@host", "needs 'redis'"),
        ("redis", "REDIS_URL", f"redis://:{SECRET}@", "names no host"),
        ("redis", "REDIS_URL", f"redis://:{SECRET}@host:port/0", "port"),
        ("rabbitmq", "RABBITMQ_URL", f"amqp://u:{SECRET}@a;b", "no scheme"),
        ("mysql", "DATABASE_URL", f"postgresql://u:{SECRET}@host/d", "needs 'mysql'"),
        ("sqlite", "DATABASE_URL", "sqlite://", "names no file"),
        ("mongodb", "MONGODB_URL", f"http://u:{SECRET}@host", "needs 'mongodb'"),
    ],
)
def test_malformed_addresses(kind: str, variable: str, url: str, says: str) -> None:
    with pytest.raises(MalformedURL) as caught:
        Environment({variable: url}).address(kind)
    text = str(caught.value)
    assert variable in text
    assert says in text
    assert SECRET not in text + repr(caught.value)


def test_addresses_of_results_come_first_for_results() -> None:
    environment = Environment({"REDIS_URL": "redis://a", "RESULT_REDIS_URL": "redis://b"})
    assert environment.address("redis").url == "redis://a"
    assert environment.address("redis", results=True).url == "redis://b"
    assert environment.address("mongodb").variable == "default"


def test_an_address_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(f"redis://:{SECRET}@host/0\n")
    address = Environment({"REDIS_URL_FILE": str(path)}).address("redis")
    assert address.url == f"redis://:{SECRET}@host/0"
    assert SECRET not in repr(address)
    with pytest.raises(AmbiguousSetting, match="REDIS_URL_FILE"):
        Environment({"REDIS_URL_FILE": str(path), "REDIS_URL": "redis://x"}).address("redis")
    path.write_text("")
    with pytest.raises(UnreadableSecret, match="empty"):
        Environment({"REDIS_URL_FILE": str(path)}).address("redis")
    with pytest.raises(UnreadableSecret, match="No such file"):
        Environment({"REDIS_URL_FILE": str(tmp_path / "none")}).address("redis")


@pytest.mark.parametrize("variable", ["CELERY_BROKER_URL", "BROKER_URL", "CELERY_RESULT_BACKEND"])
def test_an_address_behind_our_back_is_refused(variable: str) -> None:
    environ = {"BROKER_PROFILE": "redis", variable: f"redis://:{SECRET}@elsewhere/0"}
    with pytest.raises(ConflictingSetting) as caught:
        configure(Celery("t"), environ=environ)
    text = str(caught.value)
    assert variable in text
    assert "BROKER_PROFILE" in text
    assert SECRET not in text


def test_an_address_that_agrees_is_welcome() -> None:
    environ = {
        "BROKER_PROFILE": "rabbitmq",
        "RABBITMQ_URL": "amqp://u:p@host//",
        "CELERY_BROKER_URL": "amqp://u:p@host//",
    }
    app = configure(Celery("t"), environ=environ)
    assert app.conf.broker_url == "pyamqp://u:p@host//"


def test_what_the_application_sets_itself_wins() -> None:
    app = Celery("t")
    app.conf.worker_prefetch_multiplier = 9
    configure(app, "redis", environ={})
    app.conf.task_acks_late = False
    assert app.conf.worker_prefetch_multiplier == 9
    assert app.conf.task_acks_late is False
    assert app.conf.task_reject_on_worker_lost is True


@pytest.mark.parametrize(
    ("names", "namespace"),
    [
        ({"worker_prefetch_multiplier": 9, "task_acks_late": False}, None),
        ({"CELERY_WORKER_PREFETCH_MULTIPLIER": 9, "CELERY_TASK_ACKS_LATE": False}, "CELERY"),
        ({"CELERYD_PREFETCH_MULTIPLIER": 9, "CELERY_ACKS_LATE": False}, None),
    ],
    ids=["a module", "Django", "old names"],
)
def test_what_a_configuration_module_sets_wins(names: dict[str, object], namespace: str | None) -> None:
    app = configure(Celery("t"), "redis", environ={})
    app.config_from_object(SimpleNamespace(**names), namespace=namespace)
    assert app.conf.worker_prefetch_multiplier == 9
    assert app.conf.task_acks_late is False
    assert app.conf.task_reject_on_worker_lost is True
    assert app.conf.broker_url == "redis://localhost:6379/0"


def test_another_broker_in_the_application_is_refused() -> None:
    app = configure(Celery("t", broker="redis://elsewhere"), "redis", environ={})
    with pytest.raises(ConflictingSetting, match="broker_url in the configuration of the application"):
        app.conf.task_acks_late  # noqa: B018


def test_a_missing_driver_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDriver, match=r"pip install 'broker-profiles\[redis\]'"):
        configure(Celery("t"), "redis", environ={})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"redis://:{SECRET}@h/0", "redis://:***@h/0"),
        (f"x amqp://u:{SECRET}@h;amqp://v:{SECRET}@i y", "x amqp://u:***@h;amqp://v:***@i y"),
        (f"postgresql+psycopg://u:a@{SECRET}@h/d", "postgresql+psycopg://u:***@h/d"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_passwords_are_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_errors_survive_being_pickled() -> None:
    error = InvalidSetting(name="X", value="1", expected="2")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (InvalidSetting, str(error))
    assert isinstance(again, BrokerProfilesError)
