"""The JUnit form: a test fails where the run does, and nothing in it breaks the XML."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree as ET

from broker_profiles.comparison.report import data, junit
from tests.comparison.documents import AWAY, AWKWARD, LONG_ID, STARTED, run, whole


def suites(document: Any) -> dict[str, ET.Element]:
    return {suite.get("name", ""): suite for suite in ET.fromstring(junit.render(document))}


def case_of(suite: ET.Element, id_: str) -> ET.Element:
    (found,) = [case for case in suite.iter("testcase") if case.get("name") == id_]
    return found


def test_a_suite_for_each_column_and_a_test_for_each_case() -> None:
    document = whole()
    found = suites(document)
    assert list(found) == [column["name"] for column in document["columns"]]
    for name, suite in found.items():
        ids = {case.get("name") for case in suite.iter("testcase")} - {"server"}
        cells = [cell for cell in document["cells"] if cell["column"] == name]
        assert ids == {case["id"] for cell in cells for case in (*cell["cases"], *cell["not_run"])}


def test_a_broken_promise_fails_with_its_evidence() -> None:
    failure = case_of(suites(whole())["redis@redis:7"], "DEL-2/case_2").find("failure")
    assert failure is not None
    assert "have no finish in the ledger" in failure.get("message", "")
    assert failure.text is not None
    for said in (f"lost: 1: {LONG_ID}", "repeat it: broker-profiles compare", "-- worker-1 --"):
        assert said in failure.text


def test_what_a_baseline_breaks_is_no_failure() -> None:
    case = case_of(suites(whole())["stock-redis"], "DEL-1/case_1")
    assert [child.tag for child in case] == ["skipped"]
    assert case[0].get("message", "").startswith("broken, and not promised: ")


def test_what_a_profile_breaks_and_does_not_promise_is_no_failure() -> None:
    case = case_of(suites(whole())["rabbitmq@rabbitmq:3-management"], "ORD-1/case_1")
    assert [child.tag for child in case] == ["skipped"]


def test_an_error_of_the_suite_and_a_missing_server_are_errors() -> None:
    found = suites(whole())
    assert case_of(found["redis@redis:7"], "ETA-1/case_1").find("error") is not None
    assert case_of(found[AWAY], "server").find("error") is not None


def test_what_could_not_be_tried_is_skipped() -> None:
    case = case_of(suites(whole())["embedded"], "DEL-7/case_1")
    assert case[0].get("message") == "a file has no network before it"


def test_what_an_interrupted_run_left_out_is_skipped() -> None:
    made = run()
    made.attempts = []
    document = data.document(made, STARTED, STARTED + timedelta(seconds=1), False)
    case = case_of(suites(document)["embedded"], "DEL-1/case_1")
    assert case[0].tag == "skipped"
    assert case[0].get("message") == "not run"


def test_the_counts_add_up() -> None:
    root = ET.fromstring(junit.render(whole()))
    for name in ("tests", "failures", "errors", "skipped"):
        assert int(root.get(name, "")) == sum(int(suite.get(name, "")) for suite in root)
    assert root.get("failures") == "1"
    assert root.get("errors") == "2"


def test_awkward_texts_come_back_as_they_were_and_what_xml_cannot_hold_is_marked() -> None:
    made = run()
    broken = next(found for found in made.attempts if found.outcome == "error")
    made.attempts[made.attempts.index(broken)] = replace(broken, detail=f"{AWKWARD} \x00\x1b[31m\ufffe")
    document = data.document(made, STARTED, STARTED, True)
    error = case_of(suites(document)["redis@redis:7"], broken.case.id).find("error")
    assert error is not None
    assert error.get("message") == f"{AWKWARD} \ufffd\ufffd[31m\ufffd"
