"""Real files, where they are at hand: every row accounted for, users right, labelled follow-ups found again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason, Repair
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts
from rlhi_dagster.conversations.splits import SplitSettings
from rlhi_dagster.conversations.turns import turns
from rlhi_dagster.conversations.users import users

DATA = Path(__file__).parents[2] / "../shared/data"
NOW = datetime(2025, 1, 1, tzinfo=UTC)


def everything(path: Path) -> Ingested:
    if not path.is_file():
        pytest.skip(f"real data is not at hand: {path}")
    settings = SourceSettings(
        name="real",
        kind=detect_kind(str(path)),
        location=str(path),
        assumed_start=datetime(2023, 5, 1, tzinfo=UTC),
        max_message_characters=20_000,
    )
    return ingest(settings, list(month_counts(settings, now=NOW)), "salt", now=NOW)


@pytest.fixture(scope="module")
def wildchat() -> Ingested:
    return everything(DATA / "wildchat/wildchat_sample.parquet")


@pytest.fixture(scope="module")
def realhumaneval() -> Ingested:
    return everything(DATA / "realhumaneval/user_chats.parquet")


def reasons(found: Ingested) -> dict[str, int]:
    return dict(found.quarantine.group_by("reason").len().iter_rows())


def repairs(found: Ingested) -> dict[str, int]:
    return dict(found.conversations.select(pl.col("repairs").explode()).drop_nulls().group_by("repairs").len().iter_rows())


def test_wildchat_rows_are_all_accounted_for(wildchat: Ingested) -> None:
    assert sum(wildchat.rows_in.values()) == 424
    assert reasons(wildchat) == {Reason.MESSAGE_TOO_LONG: 4}
    assert repairs(wildchat) == {Repair.MERGED_CONSECUTIVE: 5, Repair.DROPPED_GREETING: 9}
    assert len(wildchat.conversations) == 420


def test_wildchat_without_addresses_has_a_user_per_conversation(wildchat: Ingested) -> None:
    assert wildchat.conversations["user_id"].n_unique() == 420
    source = pl.read_parquet(DATA / "wildchat/wildchat_sample.parquet", columns=["conversation_hash", "timestamp"])
    without_time = set(source.filter(pl.col("timestamp").is_null())["conversation_hash"])
    assumed = wildchat.conversations.filter("is_start_assumed")
    assert len(without_time) == 285
    assert set(assumed["conversation_id"]) == without_time - set(wildchat.quarantine["conversation_id"])
    assert assumed["month"].unique().to_list() == ["2023-05"]


def test_labelled_follow_ups_are_turns(wildchat: Ingested) -> None:
    labels = pl.read_csv(DATA / "wildchat/labels.csv").with_columns(
        pl.format("{}:{}", "conversation_hash", "message_index").alias("turn_id")
    )
    found = turns(wildchat.conversations)
    follow_ups = found.filter(pl.col("turn") > 1)
    missing = labels.join(follow_ups, on="turn_id", how="anti")
    # What is missing belongs to rejected conversations, and nothing that is a follow-up here was left without a label.
    assert (len(labels), len(missing)) == (1201, 11)
    assert set(missing["conversation_hash"]) <= set(wildchat.quarantine["conversation_id"])
    assert len(follow_ups) == len(labels) - len(missing)


def test_realhumaneval_rows_are_all_accepted_and_users_kept_apart(realhumaneval: Ingested) -> None:
    assert sum(realhumaneval.rows_in.values()) == 247
    assert reasons(realhumaneval) == {}
    assert repairs(realhumaneval) == {Repair.MERGED_CONSECUTIVE: 12}
    truth = pl.read_parquet(DATA / "realhumaneval/user_chats.parquet", columns=["conversation_id", "user_id"])
    pairs = realhumaneval.conversations.select("conversation_id", "user_id").join(truth, on="conversation_id", suffix="_true")
    assert pairs.select("user_id", "user_id_true").n_unique() == pairs["user_id"].n_unique() == pairs["user_id_true"].n_unique() == 66
    counted = users(realhumaneval.conversations.lazy(), SplitSettings(tuning=0, test=0.2))
    assert counted["conversations"].sum() == 247
    assert counted["user_messages"].sum() == len(turns(realhumaneval.conversations))


def test_realhumaneval_conversations_keep_their_order_in_time(realhumaneval: Ingested) -> None:
    assert realhumaneval.conversations["is_start_assumed"].all()
    starts = realhumaneval.conversations.sort("user_id", "started_at").select(
        "user_id", pl.col("conversation_id").str.extract(r"(\d+)$").cast(pl.Int64)
    )
    assert starts.select((pl.col("conversation_id").diff().over("user_id").fill_null(1) > 0).all()).item()
