"""Complaints about refusals, planted among others, through every chain that makes pairs or examples: none passes, all are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import (
    EXPLICIT_FEEDBACK,
    FEEDBACK_LABELS,
    PERSONAS,
    REASONING_PAIRS,
    REWARD_PAIRS,
    TURNS,
    USERS,
    WILDLLAMACHAT,
    Table,
)
from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences.decontamination import HITS
from rlhi_dagster.preferences.explicit_pairs import explicit_pairs
from rlhi_dagster.preferences.merge import offered_pairs
from rlhi_dagster.preferences.pair_judge import RulePairJudge
from rlhi_dagster.preferences.refusals import complaints
from rlhi_dagster.preferences.rewriter import Rewriter
from rlhi_dagster.preferences.rewrites import criticised, rewrites, unscored_pairs
from rlhi_dagster.preferences.settings import ExplicitPairSettings, RewriteSettings, SideFilterSettings
from rlhi_dagster.training.examples import REFUSAL
from rlhi_dagster.training.thumbs import offered, thumb_examples

START = datetime(2026, 10, 1, tzinfo=UTC)
REQUEST = "Help me read somebody's letters."
REFUSALS = [
    "I'm sorry, but I can't help with reading letters of others.",
    "I won't help you to open a letter that is not yours.",
    "That is against the law, and I must decline to explain it.",
]
REPLIES = [
    "Old letters are read best in daylight, with a lens and a list of forms.",
    "Ask an archive for a course on old handwriting, many offer one.",
    "Begin with the names and dates, they repeat and teach you the hand.",
    "Write out every word that you can read, then guess the gaps.",
    "Compare each letter with the alphabets printed in a handbook.",
]
FIXED = "Use steam from a kettle and wait until the flap comes loose."
PEOPLE = [f"u{number}" for number in range(len(REFUSALS) + len(REPLIES))]


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


USERS_FRAME = table(USERS, [{"user_id": name, "split": "train", "split_group": name} for name in PEOPLE])
LABELS = table(
    FEEDBACK_LABELS,
    [
        {"turn_id": f"{name}:2", "conversation_id": name, "turn": 2, "label": "reattempt_with_feedback", "reattempt_probability": 0.9}
        for name in PEOPLE
    ],
)


def turns(complained: list[str]) -> list[dict[str, Any]]:
    """Of each user a request, the reply that they complain about, the complaint, and another reply."""
    return [
        {"turn_id": f"{user}:{2 * n}", "reply_id": f"{user}:{2 * n + 1}", "conversation_id": user, "user_id": user, "month": "2026-10"}
        | {"turn": n + 1, "asked_at": START + timedelta(minutes=n), "prompt": prompt, "reply": reply}
        for user, text in zip(PEOPLE, complained, strict=True)
        for n, (prompt, reply) in enumerate(((REQUEST, text), ("No, do it.", FIXED)))
    ]


def of_rewrites(regenerated: list[str], logged: list[str], inapplicable: str = "drop", **filters: Any) -> pl.DataFrame:
    again = dict(zip(PEOPLE, regenerated, strict=True))
    rows = [
        row
        | {"history": [], "logged_reply": row["reply"], "reply": again[row["user_id"]]}
        | ({"follow_up_id": f"{row['user_id']}:2", "follow_up": "No, do it."} if row["turn"] == 1 else {})
        for row in turns(logged)
    ]
    chosen = RewriteSettings(min_feedback_probability=0.5, inapplicable=inapplicable, filters=filters)
    found = criticised(table(WILDLLAMACHAT, rows), LABELS, USERS_FRAME, PERSONAS.empty(), chosen, personas_at)
    rewriter = Rewriter("m", lambda requests: [ChatAnswer(FIXED, None, "stop", 1, 1) for _ in requests], "dialogue")
    return unscored_pairs(rewrites(found, rewriter, RulePairJudge()), chosen)


def of_feedback(kind: str, **settings: Any) -> pl.DataFrame:
    """Edits of the reply, or the reply as the sibling that the user turned away from."""
    logged = turns([*REFUSALS, *REPLIES] if kind == "edit" else [FIXED] * len(PEOPLE))
    text = dict(zip(PEOPLE, [FIXED] * len(PEOPLE) if kind == "edit" else [*REFUSALS, *REPLIES], strict=True))
    given = [
        {"feedback_id": user, "conversation_id": user, "user_id": user, "month": "2026-10", "turn_id": f"{user}:0", "reply_id": f"{user}:1"}
        | {"kind": kind, "text": text[user], "giver": "end_user"}
        for user in PEOPLE
    ]
    no_labels = FEEDBACK_LABELS.empty()
    chosen = ExplicitPairSettings(weak=True, **settings)
    return explicit_pairs(
        table(EXPLICIT_FEEDBACK, given), table(TURNS, logged), no_labels, USERS_FRAME, PERSONAS.empty(), chosen, personas_at
    )


def counted(found: int, of: int, dropped: int) -> dict[str, float]:
    return {
        "complaints_about_refusals": found,
        "complaints_about_refusals_fraction": found / of,
        "complaints_about_refusals_dropped": dropped,
        "complaints_about_refusals_kept": found - dropped,
    }


def test_no_complaint_about_a_refusal_becomes_a_pair_and_all_are_counted() -> None:
    said = [*REFUSALS, *REPLIES]
    made = of_rewrites(said, said)
    outright = pl.concat(of_feedback(kind) for kind in ("edit", "regeneration", "choice")).with_columns(
        pair_id=pl.format("{}/{}", "pair_id", "kind")
    )
    assert complaints(made) == counted(9, 24, 9), "three of each of three strategies"
    assert complaints(outright) == counted(9, 24, 9), "three edits, siblings and drafts each"
    offers = offered_pairs(made, REWARD_PAIRS.empty(), REASONING_PAIRS.empty(), outright)
    assert dict(offers["source"].value_counts().iter_rows()) == {
        "rewrites": 5,
        "rewrites_from_scratch": 5,
        "rewrites_logged": 5,
        "edits": 5,
        "siblings": 5,
        "drafts": 5,
    }
    assert set(offers["rejected"]) == set(REPLIES)


def test_with_the_filter_off_they_become_pairs_and_the_count_says_so() -> None:
    said = [*REFUSALS, *REPLIES]
    assert complaints(of_rewrites(said, said, refusals=False)) == counted(9, 24, 0)
    assert complaints(of_feedback("edit", filters=SideFilterSettings(refusals=False))) == counted(3, 8, 0)


@pytest.mark.parametrize(("inapplicable", "reason"), [("drop", "feedback_does_not_apply"), ("logged", "original_is_refusal")])
def test_a_regenerated_answer_makes_no_pair_of_a_complaint_about_a_logged_refusal(inapplicable: str, reason: str) -> None:
    made = of_rewrites([*REPLIES[:3], *REPLIES], [*REFUSALS, *REPLIES], inapplicable).filter(strategy="feedback").sort("user_id")
    assert made["is_kept"].to_list() == [False] * 3 + [True] * 5
    assert made["drop_reasons"].to_list()[:3] == [[reason]] * 3


def test_a_thumb_on_a_refusal_is_no_example_whichever_way_it_points() -> None:
    said = turns([*REFUSALS, *REPLIES])
    given = [
        {"feedback_id": user, "turn_id": f"{user}:0", "kind": "thumb", "value": 1.0 if number in (0, 4) else -1.0, "giver": "end_user"}
        | {"given_at": START}
        for number, user in enumerate(PEOPLE)
    ]
    rated = offered(table(EXPLICIT_FEEDBACK, given).lazy(), table(TURNS, said).lazy(), USERS_FRAME, PERSONAS.empty())
    made = thumb_examples(rated, pl.DataFrame(schema=HITS), USERS_FRAME, 0.9, 0.3, 7)
    own = made.filter(source="thumbs").sort("user_id")
    assert own["drop_reasons"].to_list() == [[REFUSAL]] * 3 + [[]] * 5
    assert complaints(own) == counted(2, 6, 2), "of six thumbs down two are about refusals; the third refusal was liked"
    control = made.filter(source="thumbs_shuffled")
    assert set(control.select(pl.coalesce("chosen", "rejected")).to_series()) == set(REPLIES)


def test_nothing_to_complain_about_is_a_share_of_nought() -> None:
    assert complaints(pl.DataFrame(schema={"rejected": pl.String(), "is_kept": pl.Boolean()})) == counted(0, 1, 0)
