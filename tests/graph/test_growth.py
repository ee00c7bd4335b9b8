"""What model calls cost as the logs grow: a little more data asks a little more, a plan says so before, and a limit holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from rlhi_dagster.graph.model_calls import ARTEFACTS

pytestmark = pytest.mark.slow

RLHI = Path(sys.executable).parent / "rlhi"


def answered(run) -> int:
    """Model calls that workers made, in all runs so far."""
    records = (Path(run.lake.root).parent / "responses" / "runs").rglob("*.json")
    return sum(json.loads(file.read_text())["answered"] for file in records)


def used(run) -> int:
    """Distinct answers that the latest materializations rest on."""
    references = (Path(run.lake.root).parent / "responses" / "references").rglob("*.parquet")
    return pl.concat(pl.read_parquet(file, columns=["kind", "key"]) for file in references).unique().height


def plan(run, *assets: str) -> str:
    done = subprocess.run([RLHI, "plan", *assets], env=run.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of(run, **changes) -> Path:
    profile = Path(run.env["RLHI_PROFILE"])
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | changes))
    return profile


def materialized(run, assets: str, months: str) -> subprocess.CompletedProcess[str]:
    command = [RLHI.with_name("dg"), "launch", "--assets", assets, "--partition-range", months]
    return subprocess.run(command, env=run.env, capture_output=True, text=True, check=False)


@pytest.fixture
def growing(undisturbed, fresh):
    """A run with the models of the undisturbed one, pinned as those of the Hub would be, without its last conversations: one of 100."""
    run = fresh
    profile = settings_of(
        run,
        models={
            **{role: {"folder": str(undisturbed.lake.artefact_path(name))} for role, name in ARTEFACTS.items()},
            "pair_judge": "town",
            "judge": "town",
        },
    )
    settings = yaml.safe_load(profile.read_text())
    settings["candidates"]["max_requests"] = None
    source = Path(settings["source"]["location"].replace("*", ""))  # the logs without what users did outright beside them
    rows = pl.read_parquet(source)
    # The latest, as logs grow. An earlier one would rightly change the persona of what its user asked for after it.
    is_new = (pl.col("timestamp").rank("ordinal", descending=True) <= len(rows) // 100).fill_null(False)
    part = source.with_name("part.parquet")
    rows.filter(~is_new).write_parquet(part)
    settings["source"]["location"] = str(part)
    profile.write_text(yaml.safe_dump(settings))
    return run, part, rows


def test_one_per_cent_more_conversations_ask_little_more_and_a_plan_tells(growing) -> None:
    run, source, rows = growing
    months = run.months()
    assert "has not been materialized" in plan(run, "wildllamachat")
    done = run.launch("preference_data", months)
    assert done.returncode == 0, done.stdout[-3000:]
    first = answered(run)
    assert first == used(run), "every call of a first run is used"

    added = len(rows) - len(pl.read_parquet(source))
    assert 0.008 < added / len(rows) < 0.0125
    rows.write_parquet(source)
    assert materialized(run, "conversations,quarantine,superseded,explicit_feedback,turns", months).returncode == 0
    planned = re.search(r"wildllamachat +([\d,]+) +([\d,]+)", plan(run, "wildllamachat"))
    assert planned is not None
    requests, missing = (int(number.replace(",", "")) for number in planned.groups())
    assert 0 < missing < 0.03 * requests

    done = run.launch("preference_data", months)
    assert done.returncode == 0, done.stdout[-3000:]
    again = answered(run) - first
    assert 0 < again <= 0.015 * used(run), f"{again} of {used(run)} calls asked"
    assert f"{missing:,} of {requests:,} requests to answer" in done.stdout + done.stderr, "the run forecasts what the plan told"
    assert re.search(r"wildllamachat +[\d,]+ +0 ", plan(run, "wildllamachat"))


def test_a_limit_of_the_profile_stops_an_asset_before_it_asks(growing) -> None:
    run, _, _ = growing
    settings_of(run, limits={"max_requests": 20})
    done = materialized(
        run,
        "conversations,quarantine,superseded,explicit_feedback,turns,policy,feedback_classifier,feedback_labels,wildllamachat",
        run.months(),
    )
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(r"the model calls would take [\d,]+ requests, over limits\.max_requests 20 of the profile", told)
    assert answered(run) == 0
