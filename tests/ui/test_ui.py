"""The web UI in a real browser: it loads the code location, draws the graph and shows an asset, without console errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ui.browser import CHROMIUM, FLAGS, webserver

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_"))}
    env["RLHI_DATA"] = str(tmp_path_factory.mktemp("ui"))
    binary = Path(sys.executable).parent
    env["DAGSTER_HOME"] = subprocess.check_output([binary / "rlhi", "home"], env=env, text=True).strip()
    with webserver(env) as url:
        yield url


@pytest.mark.skipif(not CHROMIUM.is_file(), reason="Chromium is not installed")
def test_graph_and_asset_pages_render(server) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{server}/asset-groups/", wait_until="domcontentloaded")
        page.get_by_text("conversations").first.wait_for(timeout=60_000)
        page.goto(f"{server}/assets/feedback_labels?view=overview", wait_until="domcontentloaded")
        page.get_by_text("One row is a follow-up message").first.wait_for(timeout=60_000)
        browser.close()
    assert not errors
