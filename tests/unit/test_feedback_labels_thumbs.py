"""Labels beside thumbs: whose thumb counts, on which reply, and when the two do not agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import EXPLICIT_FEEDBACK, FEEDBACK_LABELS, TURNS, Table
from rlhi_dagster.feedback.labels.thumbs import by_label, labels_go_with_thumbs, thumbs

START = datetime(2026, 10, 1, tzinfo=UTC)


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def tables(*said: tuple[str, float, str]) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]:
    """A conversation of two turns for each (user, thumb on the first reply, label of the follow-up)."""
    turns, labels, given = [], [], []
    for number, (user, value, label) in enumerate(said):
        name = f"c{number}"
        turns += [{"turn_id": f"{name}:{2 * turn}", "conversation_id": name, "user_id": user, "turn": turn + 1} for turn in range(2)]
        labels.append({"turn_id": f"{name}:2", "conversation_id": name, "turn": 2, "label": label})
        given.append({"feedback_id": name, "turn_id": f"{name}:0", "kind": "thumb", "value": value, "giver": "end_user", "given_at": START})
    return fill(FEEDBACK_LABELS, labels).lazy(), fill(EXPLICIT_FEEDBACK, given).lazy(), fill(TURNS, turns).lazy()


def test_only_the_latest_thumb_of_the_end_user_on_the_reply_before_counts() -> None:
    labels, given, turns = tables(("u", 1.0, "positive"))
    row = given.collect().row(0, named=True)
    further = [
        row | {"feedback_id": "later", "value": -1.0, "given_at": START + timedelta(days=1)},
        row | {"feedback_id": "staff", "value": 1.0, "giver": "staff", "given_at": START + timedelta(days=2)},
        row | {"feedback_id": "stars", "value": 5.0, "kind": "rating", "given_at": START + timedelta(days=3)},
        row | {"feedback_id": "on the answer to the follow-up", "turn_id": "c0:2", "value": 1.0},
    ]
    found = thumbs(labels, fill(EXPLICIT_FEEDBACK, [row, *further]).lazy(), turns)
    assert found.rows() == [("u", "positive", True)]


def test_shares_by_label_have_intervals_over_users() -> None:
    said = [(f"u{i}", -1.0 if i < 6 else 1.0, "reattempt_with_feedback") for i in range(8)] + [("v", 1.0, "positive")]
    rows = {row["label"]: row for row in by_label(thumbs(*tables(*said))).to_dicts()}
    complaint, praise = rows["reattempt_with_feedback"], rows["positive"]
    assert (complaint["n"], complaint["users"], complaint["down"]) == (8, 8, 0.75)
    assert complaint["ci_low"] < 0.75 < complaint["ci_high"]
    assert (praise["n"], praise["down"]) == (1, 0.0)


@pytest.mark.parametrize(("down_before_complaints", "holds"), [(0.9, True), (0.2, False)])
def test_labels_that_do_not_go_with_thumbs_are_told(down_before_complaints: float, holds: bool) -> None:
    cut = int(60 * down_before_complaints)
    said = [(f"u{i}", -1.0 if i < cut else 1.0, "reattempt_with_feedback") for i in range(60)]
    said += [(f"v{i}", -1.0 if i < 12 else 1.0, "continuation") for i in range(60)]
    found = labels_go_with_thumbs(*tables(*said))
    assert found.passed is holds
    assert found.numbers["down_before_complaints"] == down_before_complaints
    assert ("do not agree" in found.numbers["said"]) is not holds


def test_few_thumbs_say_nothing() -> None:
    found = labels_go_with_thumbs(
        *tables(*[(f"u{i}", 1.0, "reattempt_with_feedback") for i in range(19)], *[(f"v{i}", -1.0, "other") for i in range(99)])
    )
    assert found.passed
    assert "nothing can be said" in found.numbers["said"]
    assert labels_go_with_thumbs(*tables()).passed
