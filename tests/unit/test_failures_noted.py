"""Whatever error a task fails with, its message is settled, and its failure is noted in words."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery

from broker_profiles.runtime.request import Request
from broker_profiles.transports import failing


class Untold(Exception):
    """As one that reads from a response it does not have."""

    def __str__(self) -> str:
        raise AttributeError("response")


def info_of(error: Exception) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()


def failed(error: Exception, note: Any) -> list[str]:
    """Let a task fail with an error, and return what became of its message."""
    app = Celery("t", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="shop.pay", acks_late=True, shared=False)
    def pay() -> None:
        pass

    headers = {"task": "shop.pay", "id": "1", "argsrepr": "", "kwargsrepr": ""}
    message = Mock(
        headers=headers,
        body=([], {}, {}),
        payload=([], {}, {}),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={},
        properties={},
    )
    message.channel.note_failure = note
    became: list[str] = []
    request = Request(
        message,
        app=app,
        task=app.tasks["shop.pay"],
        on_ack=lambda *_: became.append("acknowledged"),
        on_reject=lambda *_: became.append("rejected"),
        hostname="h",
        eventer=Mock(),
        decoded=True,
        headers=headers,
    )
    request.on_failure(info_of(error))
    assert app.backend.get_state("1") == "FAILURE"
    return became


def test_an_error_that_has_no_text_is_noted_and_its_message_settled() -> None:
    noted: list[str] = []
    assert failed(Untold(), lambda message, failure: noted.append(failure)) == ["acknowledged"]
    first, _, traceback = noted[0].partition("\n")
    assert first == "Untold: its text cannot be made"
    assert traceback.startswith("Traceback")


def test_a_failure_that_cannot_be_noted_keeps_nothing_from_being_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def note(message: Any, failure: str) -> None:
        raise RuntimeError("no room for a note")

    assert failed(ValueError("no"), note) == ["acknowledged"]
    assert "no room for a note" in caplog.text


def test_half_a_surrogate_pair_is_in_no_part_of_a_detail() -> None:
    detail = failing.failure(info_of(ValueError("a \udcff b")))
    assert detail.startswith("ValueError: a ? b\nTraceback")
    assert detail.encode().decode() == detail
