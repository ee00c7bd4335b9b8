"""Preference data from real logs, end to end: every row accounted for, sensible labels. Texts stay where they are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.slow

DATA = (Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
SOURCES = {"wildchat": DATA / "wildchat" / "wildchat_sample.parquet", "realhumaneval": DATA / "realhumaneval" / "user_chats.parquet"}


@pytest.mark.parametrize("name", SOURCES)
def test_preference_data_runs_on_real_logs(name, fresh) -> None:
    file = SOURCES[name]
    if not file.is_file():
        pytest.skip(f"{file.name} is not beside the project")
    run = fresh(str(file))
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
    assert len(run.table("rewrite_pairs")) == len(run.table("rewrites"))
