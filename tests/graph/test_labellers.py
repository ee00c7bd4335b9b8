"""The classifier trained in the run, and a chat model that labels what it is not sure of, behind real workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from dagster import AssetKey, DagsterInstance

from rlhi_dagster.feedback.labels.classifier import WEIGHTS, FeedbackClassifier

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
ASSETS = "conversations,quarantine,superseded,explicit_feedback,turns,users,feedback_classifier,feedback_labels"


def test_a_run_trains_its_own_classifier_and_asks_a_chat_model(
    fresh, save_tiny_llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh
    profile = Path(run.env["RLHI_PROFILE"])
    settings = yaml.safe_load(profile.read_text())
    source, gold, model = settings["source"]["location"], tmp_path / "gold.csv", tmp_path / "model"
    subprocess.run([BIN / "rlhi", "label", source, gold], env=run.env, capture_output=True, text=True, check=True)
    # One label more, about a message that the source does not have.
    stray = {"conversation_hash": ["nobody"], "message_index": [2], "label": ["other"]}
    labels = pl.read_csv(gold).head(200).select("conversation_hash", "message_index", "label")
    pl.concat([labels, pl.DataFrame(stray)]).write_csv(gold)
    save_tiny_llama(model, ["A B C D E F", "Shorter, please."], max_position_embeddings=4096)
    settings["labeller"] = {"training": {"labels": str(gold), "conversations": source}, "sure": 0.8}
    settings["models"]["labeller"] = {"folder": str(model)}
    settings["sampling"]["max_new_tokens"] = 8
    profile.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [BIN / "dg", "launch", "--assets", ASSETS, "--partition-range", run.months()],
        env=run.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    classifier = FeedbackClassifier.load(run.lake.artefact_path("feedback_classifier"))
    assert classifier.digest != FeedbackClassifier.load(WEIGHTS).digest
    found = run.table("feedback_labels")
    assert len(found) == len(run.table("turns").filter(pl.col("turn") > 1))
    by_classifier = found.filter(labeller=classifier.name)
    by_model = found.filter(pl.col("labeller") != classifier.name)
    assert len(by_model) > 0
    assert by_model["labeller"].str.starts_with("model@").all()
    assert by_classifier["probability"].min() >= 0.8
    spans = by_model.drop_nulls("span").join(run.table("turns"), on="turn_id")
    assert all(span in prompt for span, prompt in spans.select("span", "prompt").iter_rows())

    monkeypatch.setenv("DAGSTER_HOME", run.env["DAGSTER_HOME"])
    with DagsterInstance.get() as instance:
        of_labels, of_classifier = (
            instance.get_latest_materialization_event(AssetKey(name)).asset_materialization.metadata
            for name in ("feedback_labels", "feedback_classifier")
        )
    assert of_classifier["labels_without_follow_up"].value == 1
    assert 0 < of_classifier["labels_of_evaluated_users"].value == 200 - classifier.card["training"]["n"]
    assert "bag of words, same folds" in of_classifier["scores"].value
    assert "data:image/png" in of_classifier["reliability"].value
    assert "data:image/png" in of_labels["cost_and_quality"].value
    assert "calls/errors" not in of_labels, "what is 0 is not shown"
    assert of_labels["calls/answered"].value >= len(by_model)
