"""`broker-profiles dead` over a real SQLite store: what it lists, shows, replays, discards and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result
from kombu import pools

from broker_profiles import configure
from broker_profiles.cli import cli
from broker_profiles.transports.sqlite import SQLiteStore
from broker_profiles.transports.store import DELIVERIES_EXHAUSTED, REJECTED, UNREADABLE, Sizes
from tests.unit.test_cli import PASSWORD, assert_one_line, run_apart

TRACEBACK = 'Traceback (most recent call last):\n  File "shop.py", line 1\nValueError: no'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "broker.sqlite3"
    monkeypatch.setenv("BROKER_PROFILE_EMBEDDED_PATH", str(path))
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore.open(f"sqlite:///{path}", {})
    yield store
    store.close()


@pytest.fixture
def app(path: Path) -> Iterator[Celery]:
    app = configure(Celery("t", set_as_current=False), "embedded")
    pools.reset()
    yield app
    app.close()
    pools.reset()


Die = Callable[..., None]


@pytest.fixture
def die(app: Celery, store: SQLiteStore) -> Die:
    def die(
        id_: str,
        *args: Any,
        task: str = "shop.pay",
        queue: str = "q",
        reason: str = REJECTED,
        detail: str = "",
        **options: Any,
    ) -> None:
        app.send_task(task, args, task_id=id_, queue=queue, **options)
        store.set_aside([store.reserve("c", [queue], 1)[0].receipt], reason, detail)

    return die


@pytest.fixture
def four(die: Die) -> None:
    """Four dead letters, 1 to 4."""
    die("one", detail=f"ValueError: no\n{TRACEBACK}")
    die("two", queue="other")
    die("three", task="shop.send", reason=UNREADABLE)
    die("four", task="mail.send", reason=DELIVERIES_EXHAUSTED)


def run(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["dead", *arguments], prog_name="broker-profiles", input=input)


def data(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def listed(*arguments: str) -> list[str]:
    return [letter["task_id"] for letter in data("list", *arguments)["dead_letters"]]


# -- list ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("four")
def test_list_says_what_died_where_when_and_why() -> None:
    first = data("list")["dead_letters"][0]
    assert first.pop("died_at").endswith("+00:00")
    assert first.pop("size") > 100
    assert first == {
        "id": "1",
        "queue": "q",
        "reason": "rejected",
        "deliveries": 1,
        "task": "shop.pay",
        "task_id": "one",
        "detail": "ValueError: no",
    }


@pytest.mark.usefixtures("four")
def test_list_prints_a_line_each_where_there_is_no_terminal() -> None:
    lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    assert [line[7] for line in lines] == ["one", "two", "three", "four"]
    assert {len(line) for line in lines} == {9}


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["one", "two", "three", "four"]),
        (["--queue", "q"], ["one", "three", "four"]),
        (["--queue", "unknown"], []),
        (["--reason", "cannot decode"], ["three"]),
        (["--task", "shop.pay"], ["one", "two"]),
        (["--task", "*.send"], ["three", "four"]),
        (["--task", "shop.*", "--queue", "q", "--limit", "1"], ["one"]),
        (["--limit", "3"], ["one", "two", "three"]),
    ],
)
def test_list_filters(arguments: list[str], ids: list[str]) -> None:
    assert listed(*arguments) == ids


def test_list_shows_a_hundred_unless_told_otherwise(die: Die) -> None:
    for number in range(103):
        die(str(number))
    assert len(listed()) == 100
    assert len(listed("--all")) == 103
    assert len(listed("--limit", "102")) == 102


def test_names_from_elsewhere_do_nothing_to_a_terminal_nor_make_lines(die: Die) -> None:
    die("x\ny\tz", queue="q\x1b[2J", task="t\r\n")
    (line,) = run("list").stdout.splitlines()
    assert line.split("\t")[6:8] == ["t\\r\\n", "x\\ny\\tz"]
    assert "q\\x1b[2J" in line


# -- show ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("four")
def test_show_has_the_traceback_of_the_last_failure() -> None:
    first, second = data("show", "1", "2")["dead_letters"]
    assert (first["task_id"], first["traceback"]) == ("one", TRACEBACK)
    assert (second["task_id"], second["traceback"]) == ("two", "")
    shown = run("show", "1").stdout
    assert all(line in shown for line in TRACEBACK.splitlines())


def test_show_has_arguments_as_celery_shows_them(die: Die) -> None:
    die("1", 5, "text", kwargs={"by": "name"}, headers={"tenant": "acme"})
    (letter,) = data("show", "1")["dead_letters"]
    assert (letter["args"], letter["kwargs"], letter["body"]) == ("(5, 'text')", "{'by': 'name'}", "")
    assert letter["headers"]["tenant"] == "acme"
    shown = run("show", "1").stdout
    assert "(5, 'text')" in shown
    assert "tenant: acme" in shown


@pytest.mark.parametrize("repr_", [{}, {"argsrepr": "(***)", "kwargsrepr": "{***}"}], ids=["own", "hidden"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_password_is_shown(form: list[str], repr_: dict[str, str], die: Die) -> None:
    url = f"amqp://me:{PASSWORD}@host//"
    kwargs = {"password": PASSWORD, "deep": {"api_key": [1, PASSWORD]}, "url": url}
    die(
        "1",
        url,
        kwargs=kwargs,
        headers={"x-token": PASSWORD, "via": url},
        detail=f"no {url}\nat {url}",
        **repr_,
    )
    assert PASSWORD not in run("list", *form).output
    shown = run("show", "1", *form)
    assert shown.exit_code == 0
    assert PASSWORD not in shown.output


def test_a_message_of_something_else_is_shown_by_its_body(app: Celery, store: SQLiteStore) -> None:
    for body in ({"password": PASSWORD, "hello": "world"}, [[1, {"token": PASSWORD}], {}, None]):
        with app.producer_or_acquire() as producer:
            producer.publish(body, routing_key="q", exchange="", serializer="json")
        store.set_aside([store.reserve("c", ["q"], 1)[0].receipt], UNREADABLE)
    first, second = data("show", "1", "2")["dead_letters"]
    assert '"hello": "world"' in first["body"]
    assert (second["args"], second["kwargs"], second["body"]) == ("[1, {'token': '***'}]", "{}", "")
    assert PASSWORD not in run("show", "--all").output


# -- replay and discard -------------------------------------------------------------------------------


@pytest.mark.usefixtures("four")
def test_replay_by_ids_makes_new_messages(store: SQLiteStore) -> None:
    assert data("replay", "1", "3", "1") == {"profile": "embedded", "replayed": 2}
    assert listed() == ["two", "four"]
    assert store.sizes("q") == Sizes(ready=2, dead=1)


@pytest.mark.usefixtures("four")
def test_replay_by_filters_needs_all() -> None:
    assert_one_line(run("replay", "--task", "shop.*"), 2, "--all")
    assert len(listed()) == 4
    assert run("replay", "--all", "--task", "shop.*", "--limit", "2").stdout == "replayed 2 dead letters\n"
    assert listed() == ["three", "four"]
    assert run("replay", "--all", "--queue", "unknown").stdout == "replayed 0 dead letters\n"


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("command", ["show", "replay", "discard"])
def test_ids_that_are_not_there_are_named_and_nothing_is_done(command: str) -> None:
    assert_one_line(
        run(command, "1", "77", "x", *(["--yes"] if command == "discard" else [])), 2, "'77' or 'x'"
    )
    assert len(listed()) == 4


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("command", ["show", "replay", "discard"])
@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "--reason", "rejected"], ["--queue", "q"]])
def test_it_has_to_be_clear_which_are_meant(command: str, arguments: list[str]) -> None:
    assert_one_line(run(command, *arguments), 2, "not clear which dead letters")
    assert len(listed()) == 4


@pytest.mark.usefixtures("four")
def test_discard_asks_first() -> None:
    refused = run("discard", "1", "2", input="n\n")
    assert refused.exit_code == 1
    assert "Discard 2 dead letters?" in refused.stderr
    assert run("discard", "1", input="").exit_code == 1
    assert len(listed()) == 4
    assert run("discard", "1", "2", input="y\n").exit_code == 0
    assert listed() == ["three", "four"]


@pytest.mark.usefixtures("four")
def test_discard_does_not_ask_after_yes(store: SQLiteStore) -> None:
    assert data("discard", "--all", "--reason", "rejected", "--yes") == {
        "profile": "embedded",
        "discarded": 2,
    }
    assert listed() == ["three", "four"]
    assert store.sizes("q") == Sizes(dead=2)


# -- what is wrong ------------------------------------------------------------------------------------


def test_a_reason_that_is_none_is_exit_2() -> None:
    result = run("list", "--reason", "boredom")
    assert result.exit_code == 2
    assert "deliveries exhausted" in result.stderr


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    result = run("replya")
    assert result.exit_code == 2
    assert "replay" in result.stderr


def test_a_profile_without_dead_letters_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "rabbitmq:fast+none")
    assert_one_line(run("list"), 1, "'rabbitmq:fast+none' keeps no dead letters")


def test_a_broker_that_is_away_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILE", "rabbitmq+none")
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://me:{PASSWORD}@127.0.0.1:1//")
    assert_one_line(run("list"), 1, "RABBITMQ_URL", "nothing listens there")


@pytest.mark.usefixtures("four")
def test_environment_twins_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PROFILES_DEAD_LIST_QUEUE", "other")
    assert listed() == ["two"]


@pytest.mark.usefixtures("four")
def test_it_is_there_with_an_application_too() -> None:
    ended = run_apart("celery", "-A", "tasks", "profile", "dead", "list", "--json")
    assert ended.exit_code == 0, ended.stderr
    assert len(json.loads(ended.stdout)["dead_letters"]) == 4
