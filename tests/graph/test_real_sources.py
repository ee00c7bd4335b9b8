"""Preference data from real logs, end to end: every row accounted for, sensible labels. Texts stay where they are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.slow

DATA = (Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
SOURCES = {"wildchat": DATA / "wildchat" / "wildchat_sample.parquet", "realhumaneval": DATA / "realhumaneval" / "user_chats.parquet"}


@pytest.mark.parametrize("name", SOURCES)
def test_preference_data_runs_on_real_logs(name, trained) -> None:
    file = SOURCES[name]
    if not file.is_file():
        pytest.skip(f"{file.name} is not beside the project")
    run = trained(str(file))
    done = run.launch("preference_data", run.months())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    rows = pl.scan_parquet(file).select(pl.len()).collect().item()
    assert len(run.table("conversations")) + len(run.table("quarantine")) == rows
    turns, labels, chat = run.table("turns"), run.table("feedback_labels"), run.table("wildllamachat")
    assert len(labels) == int((turns["turn"] > 1).sum())
    assert set(chat["turn_id"]) == set(turns["turn_id"])
    assert chat.filter(pl.col("reply").is_null() != pl.col("error").is_not_null()).is_empty()
    share = (labels["label"] == "reattempt_with_feedback").mean()
    assert 0.05 < share < 0.6
    pairs = run.table("rewrite_pairs")
    assert len(pairs) == len(run.table("rewrites"))
    logged = pairs.filter("is_kept", pl.col("strategy") == "logged")
    assert len(logged) > 0
    assert logged["call_ids"].list.len().max() == 0, "logged replies cost no call"
    said = dict(turns.select("turn_id", "prompt").iter_rows())
    personas = run.table("personas")
    assert len(personas) > 0
    for evidence, quotes in personas.select("evidence", "quotes").iter_rows():
        assert all(quote is None or quote in said[turn_id] for turn_id, quote in zip(evidence, quotes, strict=True))
