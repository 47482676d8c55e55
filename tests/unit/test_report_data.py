"""The results document: its published form, what it leaves out, and what it does not accept."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from broker_profiles.comparison import report
from broker_profiles.comparison.account import account
from broker_profiles.comparison.ledger import Event
from broker_profiles.comparison.report import data, environment
from broker_profiles.comparison.report.data import NotResults, OtherSchema
from broker_profiles.comparison.report.schema import schema
from broker_profiles.comparison.report.story import story, strip
from broker_profiles.comparison.run import Run
from broker_profiles.comparison.scenario import Outcome
from broker_profiles.errors import ConfigurationError
from broker_profiles.profile import CONTRACT
from tests.comparison.documents import AWAY, LONG_ID, PASSWORD, STARTED, run, whole

VALIDATOR = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def document_of(made: Run, complete: bool = True) -> Any:
    return data.document(made, STARTED, STARTED + timedelta(minutes=1), complete)


def cell_of(document: Any, column: str, promise: str) -> Any:
    (found,) = [c for c in document["cells"] if (c["column"], c["promise"]) == (column, promise)]
    return found


# -- form ---------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema_and_the_document_has_its_form() -> None:
    Draft202012Validator.check_schema(schema())
    assert list(VALIDATOR.iter_errors(whole())) == []


def test_the_schema_refuses_what_nobody_described() -> None:
    document = whole()
    document["cells"][0]["cases"][0]["color"] = "green"
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)


def test_every_standing_is_in_the_test_document() -> None:
    seen = {cell["standing"] for cell in whole()["cells"]}
    assert seen == set(schema()["$defs"]["cell"]["properties"]["standing"]["enum"])


def test_it_survives_a_file(tmp_path: Path) -> None:
    document = whole()
    data.save(document, tmp_path / "results.json")
    assert data.load(tmp_path / "results.json") == document


def test_half_a_character_does_not_cost_the_report(tmp_path: Path) -> None:
    made = run()
    made.attempts[0] = replace(made.attempts[0], detail="what the server said: \udcff \x00")
    report.write(document_of(made), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "index.html",
        "results.json",
        "junit.xml",
        "comparison.md",
    }
    assert data.load(tmp_path / "results.json")["cells"]


# -- content ------------------------------------------------------------------------------------------


def test_promises_that_were_not_to_be_tried_have_no_cells() -> None:
    made = run()
    made.cases = [case for case in made.cases if case.guarantee == "DEL-1"]
    document = document_of(made)
    assert {cell["promise"] for cell in document["cells"]} == {"DEL-1"}
    assert list(document["promises"]) == list(CONTRACT)
    assert document["selection"]["cases"] == 2


def test_what_is_promised_is_what_the_server_that_was_had_can_keep() -> None:
    made, name = run(), "rabbitmq@rabbitmq:3-management"
    (column,) = [column for column in made.columns if column.name == name]
    for version, standing in [("3.10.8", "not offered"), ("3.12.0", "broken promise")]:
        made.guarantees[name] = column.profile.guarantees.on(version)
        made.attempts = [
            replace(found, outcome=Outcome.BROKEN)
            if (found.column, found.case.guarantee) == (name, "DEL-4")
            else found
            for found in made.attempts
        ]
        document = document_of(made)
        assert cell_of(document, name, "DEL-4")["standing"] == standing
        (shown,) = [one for one in document["columns"] if one["name"] == name]
        assert ("DEL-4" in shown["not_offered"]) is (standing == "not offered")


def test_a_promise_does_not_hold_by_half_of_its_cases() -> None:
    made = run()
    made.attempts = [
        found for found in made.attempts if (found.column, found.case.id) != ("embedded", "DEL-1/case_2")
    ]
    cell = cell_of(document_of(made, complete=False), "embedded", "DEL-1")
    assert cell["standing"] == "not tried"
    assert [case["id"] for case in cell["cases"]] == ["DEL-1/case_1"]
    assert [case["id"] for case in cell["not_run"]] == ["DEL-1/case_2"]


def test_one_broken_case_breaks_a_promise_whatever_was_not_run() -> None:
    made = run()
    first = next(found for found in made.attempts if found.column == "redis@redis:7")
    made.attempts = [replace(first, outcome=Outcome.BROKEN)]
    assert cell_of(document_of(made), "redis@redis:7", "DEL-1")["standing"] == "broken promise"


def test_the_later_of_two_attempts_counts() -> None:
    made = run()
    late = next(found for found in made.attempts if found.column == "embedded")
    made.attempts.append(replace(late, outcome=Outcome.BROKEN, alone=True))
    cell = cell_of(document_of(made), "embedded", late.case.guarantee)
    assert [case["outcome"] for case in cell["cases"]] == ["broken", "kept"]


def test_a_column_without_a_server_says_so() -> None:
    document = whole()
    (column,) = [column for column in document["columns"] if column["name"] == AWAY]
    assert column["unavailable"].startswith("no image mongo:8")
    assert {cell["standing"] for cell in document["cells"] if cell["column"] == AWAY} == {"not tried"}


def test_no_password_is_in_it() -> None:
    made = run()
    made.attempts[0] = replace(
        made.attempts[0],
        facts={"the address": f"amqp://user:{PASSWORD}@localhost"},
        logs={"worker-1": f"Connected to redis://:{PASSWORD}@localhost/0"},
        events=[Event("note", "", 1.0, 1, f"mongodb://a:{PASSWORD}@h/x")],
    )
    text = json.dumps(document_of(made))
    assert PASSWORD not in text
    assert "redis://user:***@127.0.0.1:24001/0" in text


def test_facts_are_what_json_can_hold() -> None:
    made = run()
    odd = {"a": float("inf"), "b": {"x": (1, 2)}, "c": {3}, "d": None, "e": True, "f": Path("/x")}
    made.attempts[0] = replace(made.attempts[0], facts=odd)
    facts = document_of(made)["cells"][0]["cases"][0]["facts"]
    assert facts == {"a": "inf", "b": {"x": [1, 2]}, "c": ["3"], "d": None, "e": True, "f": "/x"}


def test_each_case_can_be_repeated_by_a_command_that_a_shell_understands() -> None:
    assert (
        data.repeat_command("redis@valkey/valkey:8", "DEL-1/child_killed")
        == "broker-profiles compare --profiles redis@valkey/valkey:8 --scenarios DEL-1/child_killed"
    )
    assert "'redis; rm -rf x'" in data.repeat_command("redis; rm -rf x", "DEL-1")


def test_the_commit_is_ours_or_nobodys(tmp_path: Path) -> None:
    """An installed copy may lie in a repository of somebody else, who does not track it."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert environment.commit(tmp_path) is None
    git("init")
    git("commit", "--allow-empty", "--message=theirs")
    ours = tmp_path / Path(environment.__file__).name
    ours.write_text("1")
    assert environment.commit(tmp_path) is None
    git("add", ".")
    git("commit", "--message=ours")
    commit = environment.commit(tmp_path)
    assert commit is not None
    assert re.fullmatch("[0-9a-f]{40}", commit)
    ours.write_text("2")
    assert environment.commit(tmp_path) == f"{commit}-dirty"


def test_a_run_that_ended_at_once_has_a_report(tmp_path: Path) -> None:
    made = run()
    made.columns, made.attempts, made.servers, made.settings, made.unavailable = [], [], {}, {}, {}
    report.write(document_of(made, complete=False), tmp_path)
    assert "The run was interrupted." in (tmp_path / "index.html").read_text()


# -- cutting ------------------------------------------------------------------------------------------


def many(tasks: int) -> list[Event]:
    """Return the events of so many tasks, of which the last is never finished, and a fault at the end."""
    found = []
    for number in range(tasks):
        id_ = f"t{number:05}"
        found += [Event("sending", id_, number, 1), Event("sent", id_, number + 0.1, 1)]
        if number < tasks - 1:
            found += [Event("start", id_, number + 0.2, 2), Event("finish", id_, number + 0.3, 2)]
    return [*found, Event("fault", "", tasks, 3, "broker SIGKILL")]


def test_a_long_timeline_keeps_faults_and_what_became_of_what_is_lost() -> None:
    events = many(1000)
    shown, left_out = data.shown_events(events, account(events))
    assert len(shown) == data.EVENTS_SHOWN
    assert left_out == 3 * 999 + 2 - data.EVENTS_SHOWN
    assert shown == sorted(shown, key=lambda event: event.time)
    assert [event.kind for event in shown if event.id == "t00999"] == ["sent"]
    assert shown[-1].text == "broker SIGKILL"


def test_where_everything_matters_there_is_an_end_too() -> None:
    events = [Event("fault", "", number, 1, "network cut") for number in range(5000)]
    shown, left_out = data.shown_events(events, account(events))
    assert (len(shown), left_out) == (data.EVENTS_AT_MOST, 5000 - data.EVENTS_AT_MOST)


def test_ids_are_cut_and_counted() -> None:
    made = run()
    events = [Event("sent", f"t{number:03}", number, 1) for number in range(50)]
    made.attempts[0] = replace(made.attempts[0], events=events, account=account(events))
    lost = document_of(made)["cells"][0]["cases"][0]["account"]["lost"]
    assert lost["count"] == 50
    assert lost["ids"] == [f"t{number:03}" for number in range(20)]


# -- the story of a case ------------------------------------------------------------------------------


def test_the_story_names_faults_and_the_ids_in_question_and_counts_the_rest() -> None:
    case = cell_of(whole(), "redis@redis:7", "DEL-2")["cases"][1]
    told = [(line.kind, line.id, line.text) for line in story(case)]
    assert told[0] == ("ready", "", "worker w1@bp-1a2b3c4d is ready")
    assert ("sent", LONG_ID, "sent") in told
    assert ("start", LONG_ID, "starts in process 4711") in told
    assert ("finish", LONG_ID, "finishes in process 4711") not in told
    assert ("fault", "", "broker back") in told
    assert ("sum", "", "40 sent") in told


def test_the_strip_has_a_lane_for_each_kind() -> None:
    case = cell_of(whole(), "redis@redis:7", "DEL-2")["cases"][1]
    drawn = strip(case)
    assert drawn is not None
    assert [lane.label for lane in drawn.lanes] == ["sent", "started", "finished"]
    assert drawn.lanes[0].count == 60
    assert drawn.faults.count == 2
    assert "60 sent" in drawn.label
    assert strip({**case, "timeline": []}) is None


# -- what is not ours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ("[1, 2]", "which schema"),
        ('{"schema": true}', "which schema"),
        ('{"schema": "1"}', "which schema"),
        ('{"schema": 1}', "'promises' is missing"),
        ('{"schema": 1, "promises": {}, "columns": [{}], "cells": [], "load": []}', "has no name"),
        ('{"schema": 1, "promises": {}, "columns": [], "cells": [1], "load": []}', "has no cases"),
        (
            '{"schema": 1, "promises": {}, "columns": [], "load": [],'
            ' "cells": [{"cases": [], "column": "x", "promise": "DEL-1", "standing": "holds"}]}',
            "of no column",
        ),
        (
            '{"schema": 1, "promises": {"DEL-1": ""}, "columns": [{"name": "x"}], "load": [],'
            ' "cells": [{"cases": [], "column": "x", "promise": "DEL-1", "standing": "fine"}]}',
            "'fine' is unknown",
        ),
    ],
)
def test_a_file_that_is_not_ours_is_one_clear_error(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(NotResults, match=said) as caught:
        data.load(path)
    assert "other.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotResults, match="No such file"):
        data.load(tmp_path / "nothing.json")


def test_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2}')
    with pytest.raises(OtherSchema, match=r"schema 2, and this version reads 1"):
        data.load(path)
