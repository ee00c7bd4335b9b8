"""A second corpus beside the source: its prompts are embedded, measured and ranked in the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, DagsterInstance

from rlhi_dagster.base.tables import CONTEXTUAL_DIVERSITY

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
TOPICS = ["tulips", "roses", "ferns", "peonies", "asters", "lilies", "moss", "sage", "mint", "thyme"]
WISHES = ["How tall are {}?", "Where do {} grow?", "Write a poem about {}.", "Are {} poisonous?", "When do I water {}?", "Do bees like {}?"]


def test_a_second_corpus_is_measured_beside_the_source(fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [wish.format(topic) for wish in WISHES for topic in TOPICS]
    rows = [{"chosen": f"\n\nHuman: {prompt}\n\nAssistant: yes", "rejected": "\n\nHuman: x\n\nAssistant: no"} for prompt in [*prompts, ""]]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, rows)) + "\n{broken")
    run = fresh
    profile = Path(run.env["RLHI_PROFILE"])
    settings = yaml.safe_load(profile.read_text())
    settings["diversity_corpora"] = [{"name": "garden", "kind": "hh_rlhf", "location": str(pairs)}]
    profile.write_text(yaml.safe_dump(settings))
    command = [
        BIN / "dg",
        "launch",
        "--assets",
        "conversations,quarantine,superseded,explicit_feedback,turns,contextual_diversity",
        "--partition-range",
        run.months(),
    ]
    done = subprocess.run(command, env=run.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    table = run.table("contextual_diversity")
    source = settings["source"]["name"]
    assert table["corpus"].to_list() == sorted([source, f"{source}, without templates", "garden"])
    assert list(table.columns) == list(CONTEXTUAL_DIVERSITY.columns)
    garden = table.filter(corpus="garden").to_dicts()[0]
    assert (garden["n"], garden["users"], garden["matched_n"]) == (60, 60, 30)
    assert 0 < garden["ci_low"] < garden["value"] < garden["ci_high"] < 1
    assert 1 < garden["vendi_score_matched"] < 30

    monkeypatch.setenv("DAGSTER_HOME", run.env["DAGSTER_HOME"])
    with DagsterInstance.get() as instance:
        shown = instance.get_latest_materialization_event(AssetKey("contextual_diversity")).asset_materialization.metadata
    assert f"{source} " in shown["ranking"].value
    assert "garden" in shown["ranking"].value
    assert "without templates" not in shown["ranking"].value
    assert "62 rows, 2 without a prompt (no_opening_request 1, unreadable_json 1)" in shown["corpora"].value
    assert "data:image/png" in shown["distances"].value
