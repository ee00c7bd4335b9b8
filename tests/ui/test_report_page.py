"""The report and the page on own logs in a real browser: light, dark, on a phone, on paper, and with the keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.feedback.labels import offline
from rlhi_dagster.report import compared, own_logs
from rlhi_dagster.report.page import render
from tests.ui.browser import CHROMIUM, FLAGS
from tests.unit.test_report import made_up
from tests.unit.test_report_compared import report, score
from tests.unit.test_report_own_logs import embed, labelled

pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason="Chromium is not installed")

AUDIT = (Path(__file__).parent / "audit.js").read_text()
PHONE, DESK, PAPER = 400, 1280, 718
"""Widths in CSS pixels; the last is that of A4 within the usual margins."""
LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitän" * 4
MODELS = ("meta-llama/Llama-3.1-8B-Instruct-turbo-2026-01", "meta-llama/Llama-3.1-8B-Instruct-turbo-2026-05")


def logs(folder: Path) -> str:
    """The page on logs with a word and names of models that are longer than any column."""
    rows = []
    for user in range(12):
        said = f"Start with the answer, without an introduction, please. {LONG_WORD}" if user % 2 else "Make it shorter, please."
        messages = [("user", f"How do I grow {LONG_WORD}?"), ("assistant", "In a pot."), ("user", said), ("assistant", "Pot.")]
        rows.append(
            {
                "id": f"c{user}",
                "user": f"u{user}",
                "created": f"2026-0{1 + user % 6}-01T10:00:00Z",
                "model": MODELS[user % 2],
                "messages": [{"role": role, "content": text} for role, text in messages],
            }
        )
    file = folder / "support.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = offline.read_follow_ups(str(file))
    return own_logs.render(own_logs.survey(str(file), found, labelled(found), embed, 3), "support.gold.csv")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {"report": folder / "index.html", "logs": folder / "logs.html", "two": folder / "two.html"}
    found["report"].write_text(render(made_up(users=12)))
    found["logs"].write_text(logs(folder))
    scores = [score(name, value) for name, value in (("base", 0.2), ("dpo_rewards_shuffled_persona", 0.4))]
    two = compared.compare(report(*scores), report(*scores, items="b2"))
    found["two"].write_text(compared.render(two, f"/data/{LONG_WORD}/report.json", "mine"))
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    opened = browser.new_page()
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    yield opened
    opened.close()


def shown(window: Any, page: Path, width: int, scheme: str = "light", media: str = "screen") -> None:
    window.set_viewport_size({"width": width, "height": 900})
    window.emulate_media(color_scheme=scheme, media=media)
    window.goto(page.as_uri())


@pytest.mark.parametrize(("name", "charts"), [("report", 10), ("logs", 5), ("two", 1)])
def test_pages_are_whole_in_every_light_and_width(window: Any, pages: dict[str, Path], name: str, charts: int) -> None:
    for how in ((DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PAPER, "dark", "print")):
        shown(window, pages[name], *how)
        found = window.evaluate(AUDIT)
        assert found.pop("charts") >= charts, how
        assert found.pop("overflow") <= 0, how
        assert found == {fault: [] for fault in found if fault not in ("unreachable", "unnamed")} | {"unreachable": 0, "unnamed": 0}, how
    assert window.complaints == []


def test_the_audit_sees_what_it_looks_for(window: Any, tmp_path: Path) -> None:
    """Every fault planted once; without this the test above could not fail."""
    chart = "<figure><svg viewBox='0 0 9 9' width='90' aria-label='c'><text>overprinted</text><text>overprinted</text></svg></figure>"
    page = tmp_path / "faulty.html"
    page.write_text(
        f"<body style='background:#fff'>{chart}<figure><svg></svg></figure><p style='color:#aaa'>pale</p><a href='#nowhere'>x</a>"
        "<div class='scroll'></div><div style='width:3000px'>wide</div></body>"
    )
    shown(window, page, PHONE)
    found = window.evaluate(AUDIT)
    assert found["overflow"] > 0
    assert found["overprinted"] == ["c: overprinted / overprinted"]
    assert found["empty"] == ["c", None]
    assert any("pale" in each for each in found["pale"])
    assert (found["dead_links"], found["unreachable"], found["unnamed"]) == (["#nowhere"], 1, 1)


def test_paper_has_no_menu_and_the_colours_of_light(window: Any, pages: dict[str, Path]) -> None:
    shown(window, pages["report"], PAPER, "dark", "print")
    assert window.locator("nav").is_hidden()
    assert window.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_the_keyboard_reaches_contents_and_wide_tables(window: Any, pages: dict[str, Path]) -> None:
    shown(window, pages["report"], PHONE)
    window.keyboard.press("Tab")
    focused = "[document.activeElement.getAttribute('href'), getComputedStyle(document.activeElement).outlineStyle]"
    assert window.evaluate(focused) == ["#results", "solid"]
    window.keyboard.press("Enter")
    assert window.evaluate("location.hash") == "#results"
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.className") == "scroll", "from the contents to the section's table"
    for _ in range(3):
        window.keyboard.press("ArrowRight")
    window.wait_for_function("document.activeElement.scrollLeft > 0")
