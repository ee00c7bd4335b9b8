"""``benchmarks/town_truth.py`` measures clicks and their pairs against the hidden preference."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import town_truth
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import EXPLICIT_FEEDBACK, EXPLICIT_PAIRS, TURNS, Table
from rlhi_dagster.simulation.town.content import TOPICS
from rlhi_dagster.simulation.town.style import Style, render

MONTH, TOPIC = "2023-04", TOPICS[0]
WANTED = Style("short", "prose", "formal", "english")
GOOD, BAD, WORSE = (
    render(TOPIC, style) for style in (WANTED, WANTED.with_value("tone", "friendly"), Style("long", "bullets", "friendly", "spanish"))
)


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    shared = {"user_id": "ann", "month": MONTH, "asked_at": datetime(2023, 4, 1, tzinfo=UTC)}
    return pl.DataFrame([{name: (shared | row).get(name) for name in declared.columns} for row in rows], schema=declared.schema)


def test_clicks_and_their_pairs_are_measured_by_kind_and_evidence(tmp_path: Path) -> None:
    asked = TOPIC.request(0)
    replies = (GOOD, GOOD, BAD, WORSE)
    turns = [{"turn_id": f"c:{n}", "reply_id": f"r{n}", "turn": 1, "prompt": asked, "reply": text} for n, text in enumerate(replies)]
    clicks = [
        {"feedback_id": f"f{n}", "turn_id": f"c:{n}", "reply_id": f"r{n}", "kind": "thumb", "value": value, "giver": "end_user"}
        for n, value in enumerate((1.0, -1.0, -1.0, 1.0))
    ]
    sides = [("edit", "strong", GOOD, BAD, True), ("edit", "strong", WORSE, BAD, True), ("regeneration", "weak", BAD, GOOD, False)]
    pairs = [
        {"pair_id": f"p{n}", "kind": kind, "evidence": evidence, "prompt": [{"role": "user", "content": asked}], "chosen": chosen}
        | {"rejected": rejected, "is_kept": kept, "drop_reasons": [] if kept else ["contradicted"]}
        for n, (kind, evidence, chosen, rejected, kept) in enumerate(sides)
    ]
    lake = Lake(root=str(tmp_path))
    for name, declared, rows in (
        ("turns", TURNS, turns),
        ("explicit_feedback", EXPLICIT_FEEDBACK, clicks),
        ("explicit_pairs", EXPLICIT_PAIRS, pairs),
    ):
        lake.write(name, table(declared, rows), [MONTH])
    town = town_truth.Town(lake, {"ann": WANTED})
    assert [shown.split(" ")[0] for _, shown in town_truth.thumbs(town)] == ["0.500", "0.500"]
    found = {label: shown.split(" ")[0] for label, shown in town_truth.pairs(town, "explicit_pairs", "kind")}
    assert found == {
        "`edit`, no filter": "0.500",
        "`edit`, kept": "0.500",
        "`regeneration`, no filter": "0.000",
        "`regeneration`, kept": "–",
    }
    assert [label for label, _ in town_truth.pairs(town, "explicit_pairs", "evidence")][::2] == ["`strong`, no filter", "`weak`, no filter"]
