"""The page in a real browser: what it shows, that it can be used, and that it asks nobody for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

from broker_profiles.comparison import report
from broker_profiles.comparison.report.words import SIGNS, figure
from tests.comparison import browser
from tests.comparison.documents import AWKWARD, LONG_ID, PASSWORD, whole

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1366, "height": 900}

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def document() -> Any:
    return whole()


@pytest.fixture(scope="module")
def file(document: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report.write(document, folder)
    return folder / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = browser.program()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=browser.FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(chromium: Browser, file: Path) -> Iterator[Open]:
    """Return a function that opens the page; at the end nothing has gone wrong or been asked for."""
    requests: list[Request] = []
    problems: list[str] = []
    contexts = []

    def open_page(fragment: str = "", **options: Any) -> Page:
        context = chromium.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(file.as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
    assert {request.url.partition("#")[0] for request in requests} <= {file.as_uri()}


def keys(page: Page) -> dict[str, str]:
    """Return column -> the key that its cells have."""
    cells = page.locator("#filters input[name=column]")
    return {
        cell.evaluate("e => e.parentElement.textContent").strip(): cell.get_attribute("value") or ""
        for cell in cells.all()
    }


# -- what it says -------------------------------------------------------------------------------------


def test_the_matrix_is_that_of_the_results(opened: Open, document: Any) -> None:
    page = opened()
    by_column = keys(page)
    shown = page.locator("td[data-said]").evaluate_all(
        "cells => cells.map(c => [c.dataset.column, c.parentElement.dataset.promise, c.dataset.said,"
        " c.querySelector('.word').textContent])"
    )
    expected = [
        [by_column[cell["column"]], cell["promise"], cell["standing"], SIGNS[cell["standing"]].label]
        for cell in document["cells"]
    ]
    assert sorted(shown) == sorted(expected)


def test_the_figures_are_those_of_the_results(opened: Open, document: Any) -> None:
    page = opened()
    facts = page.locator(".case").evaluate_all(
        "cases => cases.flatMap(c => [...c.querySelectorAll('dd[data-value]')].map(d =>"
        " [c.querySelector('.id').textContent, d.previousElementSibling.textContent, d.dataset.value]))"
    )
    assert sorted(facts) == sorted(
        [case["id"], name, str(value).replace("\u202e", "\ufffd")]
        for cell in document["cells"]
        for case in cell["cases"]
        for name, value in case["facts"].items()
    )
    medians = page.locator(".figures data").evaluate_all("all => all.map(d => [d.value, d.textContent])")
    assert sorted(medians) == sorted(
        [str(row["median"]), figure(row["median"])] for row in document["load"] if row["median"] is not None
    )


def test_the_evidence_of_a_cell_is_complete(opened: Open, document: Any) -> None:
    page = opened()
    key = keys(page)["redis@redis:7"]
    text = page.locator(f"#e-DEL-2-{key}").text_content() or ""
    (cell,) = [c for c in document["cells"] if (c["column"], c["promise"]) == ("redis@redis:7", "DEL-2")]
    broken = cell["cases"][1]
    for said in (LONG_ID, "1 lost", "1 run twice", "broker SIGKILL", "broker back", broken["repeat"]):
        assert said in text
    column = page.locator(f"#col-{key}")
    column.evaluate("e => { e.closest('details').open = true }")
    for said in ("7.4.2", "container redis:7", "sha256:0123456789abcdef", "task_acks_late", "REDIS_URL"):
        assert said in column.inner_text()


def test_what_is_awkward_is_text_and_no_password_is_shown(opened: Open, file: Path) -> None:
    page = opened()
    assert page.locator("script").count() == 1
    assert page.locator("main b b").count() == 0
    assert AWKWARD.replace("\u202e", "\ufffd") in page.locator(".verdict").inner_text()
    assert PASSWORD not in file.read_text()


def test_baselines_are_set_apart_and_no_standing_is_a_colour_alone(opened: Open) -> None:
    page = opened()
    groups = page.locator("tr.groups th").all_inner_texts()
    assert groups == ["Profiles", "Baselines: Celery as it comes"]
    for cell in page.locator("a.cell").all():
        assert cell.locator("svg").count() == 1
        assert cell.locator(".word").inner_text()


# -- how it is used -----------------------------------------------------------------------------------


def test_enter_on_a_cell_opens_its_evidence(opened: Open) -> None:
    page = opened()
    key = keys(page)["stock-redis"]
    details = page.locator("details", has=page.locator(f"#e-DEL-1-{key}"))
    assert details.get_attribute("open") is None
    page.locator(f"#m-DEL-1-{key}").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("id => document.getElementById(id).checkVisibility()", arg=f"e-DEL-1-{key}")
    assert details.get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    details.get_by_text("Back to the matrix").click()
    page.wait_for_function("id => document.activeElement.id === id", arg=f"m-DEL-1-{key}")


def test_a_link_to_a_cell_opens_it(opened: Open) -> None:
    page = opened("#e-DEL-1-c0")
    assert page.locator("#e-DEL-1-c0").is_visible()
    assert page.locator("#e-DEL-1-c1").is_hidden()


def test_filters(opened: Open, document: Any) -> None:
    page = opened()
    status = page.locator("#shown")
    assert status.inner_text() == f"{len(document['cells'])} cells shown"

    page.get_by_label("embedded", exact=True).uncheck()
    assert page.locator("td[data-column=c0]:visible").count() == 0
    assert page.locator("details[data-column=c0]:visible").count() == 0
    page.get_by_label("Promises", exact=True).select_option("ETA-")
    assert page.locator("tr[data-promise]:visible").count() == 2
    assert page.locator("section[data-promise]:visible").count() == 2
    assert status.inner_text() == f"{2 * (len(document['columns']) - 1)} cells shown"

    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("n => document.getElementById('shown').textContent.startsWith(n)", arg="88 ")
    page.get_by_role("button", name="What is broken").click()
    left = page.locator("a.cell:visible").evaluate_all("all => all.map(e => e.className)")
    assert {name.removeprefix("cell ") for name in left} == {
        "broken-promise",
        "broken",
        "not-offered",
        "error",
    }


def test_a_link_to_what_is_filtered_out_shows_it(opened: Open) -> None:
    page = opened()
    page.get_by_label("Promises", exact=True).select_option("DEL-1")
    page.evaluate("location.hash = '#e-ORD-1-c1'")
    page.wait_for_function("document.getElementById('e-ORD-1-c1').checkVisibility()")
    assert page.locator("#e-ORD-1-c1").is_visible()


def test_it_can_be_read_without_javascript(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("a.cell:visible").count() == 88
    assert page.locator("#filters").is_hidden()
    page.locator("a.cell").first.click()
    assert page.locator("#e-DEL-1-c0").is_visible()
    summary = page.locator("details[data-standing] > summary").nth(1)
    summary.click()
    assert page.locator("#e-DEL-1-c1").is_visible()


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_nothing_is_wider_than_the_screen(opened: Open, width: int) -> None:
    page = opened(viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_there_are_no_controls_and_no_dark_ground(opened: Open) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("#filter-box").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("table.matrix").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("scheme", "viewport"),
    [
        ("light", DESKTOP),
        ("dark", PHONE),
        pytest.param("dark", DESKTOP, marks=pytest.mark.slow),
        pytest.param("light", PHONE, marks=pytest.mark.slow),
    ],
)
def test_nothing_serious_stands_in_anybodys_way(opened: Open, scheme: str, viewport: Any) -> None:
    page = opened(color_scheme=scheme, viewport=viewport)
    page.evaluate(
        "document.querySelectorAll('.card, .measure details, .filter-box').forEach((d, n) =>"
        " { d.open = d.open || n % 30 === 0 })"
    )
    # axe skips what the browser puts off until it is scrolled to.
    page.add_style_tag(content=".evidence section { content-visibility: visible !important; }")
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], one["help"], [node["target"] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious
