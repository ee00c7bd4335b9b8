"""Persona lines and snapshots: what they cite, when they hold, and that no later message is ever used."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.feedback import Feedback
from rlhi_dagster.personas.extractive import MAX_EVIDENCE, persona_lines
from rlhi_dagster.personas.snapshots import personas_at, render
from rlhi_dagster.tables import PERSONAS, TIME

START = datetime(2023, 4, 1, tzinfo=UTC)
WANTED = Feedback.REATTEMPT_WITH_FEEDBACK.value
TEXTS = ["Make it shorter, please.", "Too short.", "Use bullet points.", "no lists", "Be more friendly.", "More formal, please.",
         "In Spanish, please.", "Longer, and in English please", "How do I grow mint?", "No, I meant tulips."]  # fmt: skip


def messages(rows: list[tuple[str, int, int, str, str | None]]) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Turns and labels from (user, hour, turn, text, label); every message its own conversation."""
    schema = {"user_id": pl.String, "hour": pl.Int64, "turn": pl.Int32, "prompt": pl.String, "label": pl.String}
    frame = (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_row_index("n")
        .with_columns(
            conversation_id=pl.format("c{}", "n"),
            turn_id=pl.format("c{}:{}", "n", "turn"),
            asked_at=(pl.lit(START) + pl.duration(hours="hour")).cast(TIME),
        )
    )
    return frame.drop("label").lazy(), frame.filter(pl.col("label").is_not_null()).select("turn_id", "label").lazy()


def random_town(seed: int, size: int = 120) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(size):
        turn = int(generator.integers(1, 4))
        label = str(generator.choice([WANTED, "continuation"], p=[0.8, 0.2])) if turn > 1 else None
        rows.append((f"u{generator.integers(0, 4)}", int(generator.integers(0, 60)), turn, str(generator.choice(TEXTS)), label))
    return messages(rows)


def test_a_run_of_the_same_wish_gathers_evidence_and_a_change_starts_anew() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 2, 2, "Shorter!", WANTED), ("u", 3, 2, "too short", WANTED)]))
    lines = lines.sort("valid_from")
    assert lines.schema == PERSONAS.schema
    assert lines["line"].to_list() == ["Prefers short answers.", "Prefers short answers.", "Prefers long, detailed answers."]
    assert lines["evidence"].to_list() == [["c0:2"], ["c0:2", "c1:2"], ["c2:2"]]
    assert lines["valid_until"].to_list() == [*lines["valid_from"].to_list()[1:], None]
    assert lines["persona_line_id"].n_unique() == 3


def test_only_feedback_and_opening_requests_count() -> None:
    rows = [("u", 1, 2, "Use bullet points.", "continuation"), ("u", 2, 1, "How do I cook rice? Keep it short.", None)]
    assert persona_lines(*messages(rows))["aspect"].to_list() == ["length"]
    assert persona_lines(*messages([])).equals(PERSONAS.empty())


def test_evidence_is_capped_to_the_latest() -> None:
    lines = persona_lines(*messages([("u", hour, 2, "Too long.", WANTED) for hour in range(12)])).sort("valid_from")
    assert lines["evidence"][-1].to_list() == [f"c{i}:2" for i in range(12 - MAX_EVIDENCE, 12)]


def test_of_wishes_at_the_same_moment_the_later_stands_and_keys_stay_unique() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 1, 2, "too short", WANTED), ("u", 1, 2, "Longer.", WANTED)]))
    assert lines["line"].to_list() == ["Prefers long, detailed answers."]
    assert lines["evidence"].to_list() == [["c1:2", "c2:2"]]


@pytest.mark.parametrize("seed", range(8))
def test_no_persona_uses_the_message_itself_or_a_later_one(seed: int) -> None:
    turns, labels = random_town(seed)
    asked_at = dict(turns.select("turn_id", "asked_at").collect().iter_rows())
    lines = persona_lines(turns, labels)
    assert lines["persona_line_id"].is_unique().all()
    evidence = dict(lines.select("persona_line_id", "evidence").iter_rows())
    moments = turns.select("turn_id", "user_id", "asked_at").collect()
    shown = personas_at(lines, moments)
    for row in shown.iter_rows(named=True):
        cited = [turn_id for line in row["persona_line_ids"] for turn_id in evidence[line]]
        assert all(asked_at[turn_id] < row["asked_at"] for turn_id in cited)
        assert row["turn_id"] not in cited
    assert shown["persona_line_ids"].list.len().sum() > 0


@pytest.mark.parametrize("seed", range(4))
def test_a_persona_does_not_change_when_later_messages_arrive(seed: int) -> None:
    turns, labels = random_town(seed)
    cut = START + timedelta(hours=30)
    moments = turns.filter(pl.col("asked_at") <= cut).select("turn_id", "user_id", "asked_at").collect()
    early = persona_lines(turns.filter(pl.col("asked_at") <= cut), labels)
    assert personas_at(early, moments).equals(personas_at(persona_lines(turns, labels), moments))


@pytest.mark.parametrize("seed", range(4))
def test_snapshots_agree_with_the_definition(seed: int) -> None:
    turns, labels = random_town(seed)
    lines = persona_lines(turns, labels)
    moments = turns.select("asked_at", "user_id", "turn_id").collect().sample(fraction=1.0, shuffle=True, seed=seed)
    shown = personas_at(lines, moments)
    assert shown.drop("persona", "persona_line_ids").equals(moments)
    for row in shown.iter_rows(named=True):
        t = row["asked_at"]
        still = pl.col("valid_until").is_null() | (pl.col("valid_until") >= t)
        valid = lines.filter((pl.col("user_id") == row["user_id"]) & (pl.col("valid_from") < t) & still).sort("aspect")
        assert row["persona_line_ids"] == valid["persona_line_id"].to_list()
        assert row["persona"] == render(valid["line"].to_list())


def test_a_persona_without_lines_is_empty_and_rendering_is_one_line_each() -> None:
    moments = pl.DataFrame({"user_id": ["u"], "asked_at": [START]}, schema_overrides={"asked_at": TIME})
    shown = personas_at(PERSONAS.empty(), moments)
    assert shown.row(0) == ("u", START, "", [])
    assert shown.schema["persona_line_ids"] == pl.List(pl.String)
    assert render([]) == ""
    assert render(["Prefers short answers.", "Prefers bullet points."]) == "- Prefers short answers.\n- Prefers bullet points."


def test_a_line_that_ended_is_not_shown_and_overlaps_are_refused() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 5, 2, "Longer.", WANTED)])).sort("valid_from")
    moments = pl.DataFrame({"user_id": ["u"], "asked_at": [START + timedelta(hours=4)]}, schema_overrides={"asked_at": TIME})
    ended = lines.head(1).with_columns(valid_until=pl.lit(START + timedelta(hours=2)).cast(TIME))
    assert personas_at(ended, moments)["persona"].to_list() == [""]
    with pytest.raises(ValueError, match="overlap"):
        personas_at(lines.with_columns(valid_until=pl.lit(None, TIME)), moments)
    with pytest.raises(ValueError, match="user_id"):
        personas_at(lines, moments.with_columns(user_id=pl.lit(None, pl.String)))
