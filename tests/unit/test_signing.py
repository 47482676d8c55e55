"""Signed messages: what the environment has to say, and what kombu makes of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from celery import Celery
from kombu.exceptions import DecodeError
from kombu.serialization import dumps, loads

from broker_profiles import configure
from broker_profiles.comparison.signers import Signer
from broker_profiles.runtime.signing import IncompleteSigning, UnusableSigning


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"), "ours")


@pytest.fixture
def trusted(tmp_path: Path, signer: Signer) -> Path:
    signer.trusted_in(tmp_path / "trusted")
    return tmp_path / "trusted"


def test_messages_are_signed_and_no_others_taken(signer: Signer, trusted: Path) -> None:
    app = configure(Celery("t", set_as_current=False), "memory", signer.variables(trusted))
    assert app.conf.task_serializer == app.conf.event_serializer == "auth"
    assert app.conf.accept_content == ["auth"]
    # Results are read by whoever may read the store.
    assert (app.conf.result_serializer, app.conf.result_accept_content) == ("json", ["json"])
    content_type, encoding, body = dumps({"a": 1}, serializer="auth")
    assert loads(body, content_type, encoding, accept=["auth"]) == {"a": 1}


def test_what_was_changed_on_its_way_is_not_read(signer: Signer, trusted: Path) -> None:
    configure(Celery("t", set_as_current=False), "memory", signer.variables(trusted))
    content_type, encoding, body = dumps({"amount": 1}, serializer="auth")
    changed = b64encode(b64decode(body).replace(b'"amount": 1', b'"amount": 9'))
    assert changed != body.encode()
    with pytest.raises(DecodeError):
        loads(changed, content_type, encoding, accept=["auth"])


def test_without_a_key_messages_are_plain_json() -> None:
    app = configure(Celery("t", set_as_current=False), "memory", {})
    assert (app.conf.task_serializer, app.conf.accept_content) == ("json", ["json"])


@pytest.mark.parametrize("left_out", ["KEY", "CERTIFICATE", "TRUSTED"])
def test_one_that_is_missing_is_named(signer: Signer, trusted: Path, left_out: str) -> None:
    environ = signer.variables(trusted)
    del environ[f"BROKER_PROFILE_SIGNING_{left_out}_PATH"]
    with pytest.raises(IncompleteSigning, match=f"BROKER_PROFILE_SIGNING_{left_out}_PATH is not set"):
        configure(Celery("t"), "memory", environ)


@pytest.mark.parametrize(
    ("variable", "content", "says"),
    [
        ("KEY", None, "No such file"),
        ("KEY", "no key", "private key"),
        ("CERTIFICATE", None, "No such file"),
        ("CERTIFICATE", "no certificate", "certificate"),
        ("TRUSTED", None, "no folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    signer: Signer, trusted: Path, tmp_path: Path, variable: str, content: str | None, says: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    name = f"BROKER_PROFILE_SIGNING_{variable}_PATH"
    with pytest.raises(UnusableSigning, match=says) as caught:
        configure(Celery("t"), "memory", {**signer.variables(trusted), name: str(path)})
    assert name in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_trusted_certificate_that_cannot_be_read_is_an_error(signer: Signer, trusted: Path) -> None:
    (trusted / "other.pem").write_text("no certificate")
    with pytest.raises(UnusableSigning, match="certificate"):
        configure(Celery("t"), "memory", signer.variables(trusted))
