"""Operating the pipeline in a real browser: a month made by clicking, the run on the timeline, a fault red in its month alone."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import conversations
from rlhi_dagster import definitions, profiles
from rlhi_dagster.graph.partitions import range_tags
from tests.built import built, upstream
from tests.ui.browser import CHROMIUM, FLAGS, ROOT

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.is_file(), reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data root of its own whose conversations of all months have been made."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_"))}
    env |= {"RLHI_DATA": str(tmp_path_factory.mktemp("ui")), "PYTHONPATH": str(ROOT)}
    env["DAGSTER_HOME"] = subprocess.check_output([BIN / "rlhi", "home"], env=env, text=True, cwd=ROOT).strip()
    months = subprocess.check_output([BIN / "rlhi", "months"], env=env, text=True, cwd=ROOT).strip()
    ingested = "conversations,quarantine,superseded,explicit_feedback"
    done = subprocess.run(
        [BIN / "dg", "launch", "--assets", ingested, "--partition-range", months],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return env


@pytest.fixture(scope="module")
def url(environment: dict[str, str]) -> Iterator[str]:
    """The UI with its daemon, as ``make ui`` starts it, on this machine alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [BIN / "dg", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"{found}/server_info", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline, "the UI did not start"
                time.sleep(0.5)
        yield found
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(120_000)
        yield opened
        browser.close()


def test_every_month_is_made_by_clicking_and_the_runs_are_on_the_timeline(page: Any, url: str, environment: dict[str, str]) -> None:
    page.goto(f"{url}/assets/turns", wait_until="domcontentloaded")
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    page.get_by_role("button", name="Missing", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        deadline = time.monotonic() + 300
        while instance.get_materialized_partitions(dg.AssetKey("turns")) != {f"2023-0{month}" for month in range(4, 10)}:
            assert time.monotonic() < deadline, [run.status for run in instance.get_runs()]
            time.sleep(1)
    page.goto(f"{url}/overview/activity/timeline", wait_until="domcontentloaded")
    page.get_by_text("Jobless asset materializations").first.wait_for()
    assert page.get_by_text("No runs").count() == 0


def test_tables_on_an_assets_page_fit_its_panel(page: Any, url: str) -> None:
    page.goto(f"{url}/assets/conversations", wait_until="domcontentloaded")
    page.get_by_text("conversations_by_month").first.wait_for()
    wide = page.evaluate(
        "[...document.querySelectorAll('table')].filter(each => each.scrollWidth > each.parentElement.clientWidth + 1)"
        ".map(each => `${each.scrollWidth} in ${each.parentElement.clientWidth}: ${each.innerText.slice(0, 300)}`)"
    )
    assert wide == []


def test_the_launchpads_show_what_can_be_set_for_one_run_with_defaults_and_meanings(page: Any, url: str) -> None:
    page.goto(f"{url}/locations/rlhi/jobs/forecast/playground", wait_until="domcontentloaded")
    page.locator(".CodeMirror-line", has_text="assets: []").click()
    page.get_by_text("Names of assets that ask models; all of them if the list is empty.").first.wait_for()
    page.get_by_text("First partition: a month (YYYY-MM) or a recipe.").first.wait_for()
    page.goto(f"{url}/assets/reasoning_errors", wait_until="domcontentloaded")
    page.get_by_role("button", name=re.compile("Materialize")).first.click(modifiers=["Shift"])
    page.locator(".CodeMirror-line", has_text="limit: 0").click()
    page.get_by_text("no part is taken for the whole").first.wait_for()


def test_a_planted_fault_is_red_in_its_month_alone(page: Any, url: str, environment: dict[str, str]) -> None:
    """A conversation that stands twice in the file of June."""
    profile, june = profiles.load("sample", environment=environment), "2023-06"
    given, (check, *_) = definitions.resources(profile), conversations.table_checks
    rows = given["lake"].scan("conversations", [june]).collect()
    given["lake"].write("conversations", pl.concat([rows, rows.head(1)]), [june])
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        dg.materialize(
            [*built(profile, check), *upstream(profile, "conversations")],
            instance=instance,
            resources=given,
            selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("conversations"), "matches_table")),
            tags=range_tags(june, june),
            raise_on_error=False,
        )
    page.goto(f"{url}/assets/conversations?view=checks&checkDetail=matches_table", wait_until="domcontentloaded")
    page.get_by_text("duplicate_rows").first.wait_for()
    latest = page.inner_text("body").partition("Latest execution")[2]
    assert re.search(rf"Failed.*Partition\s+{june}\s.*duplicate_rows\s+1\s", latest, re.DOTALL)
    page.get_by_text("Partitions", exact=True).last.click()
    page.get_by_text("Failed (1)").wait_for()
    page.get_by_text("Passed (5)").wait_for()
