"""Pairs from edits, regenerations and choices: sides, evidence, reasons against them, and the account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import preferences
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import EXPLICIT_FEEDBACK, EXPLICIT_PAIRS, FEEDBACK_LABELS, PERSONAS, TURNS, USERS, Table
from rlhi_dagster.conversations.sources.records import Giver
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.personas.versions import CORRECTION
from rlhi_dagster.preferences.explicit_pairs import account, explicit_pairs, outright_preferences_are_conserved
from rlhi_dagster.preferences.settings import ExplicitPairSettings, SideFilterSettings
from tests.built import built, knowing, upstream

START = datetime(2026, 10, 1, tzinfo=UTC)
SAID = [
    ("How do I grow mint?", "Plant it in sun."),
    ("And water?", "Water it twice a week in summer, early in the morning, and less often in winter."),
    ("Thanks!", "You are welcome."),
]
OTHER = "Give it a large pot and good soil."


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(declared.columns) | row for row in rows], schema=declared.schema, orient="row")


def turns_of(name: str, user: str) -> list[dict[str, Any]]:
    shared = {"conversation_id": name, "user_id": user, "month": "2026-10"}
    return [
        shared
        | {"turn_id": f"{name}:{2 * n}", "reply_id": f"{name}:{2 * n + 1}", "turn": n + 1, "asked_at": START + timedelta(minutes=n)}
        | {"prompt": prompt, "reply": reply}
        for n, (prompt, reply) in enumerate(SAID)
    ]


TURNS_OF_ALL = table(TURNS, [*turns_of("a", "ann"), *turns_of("b", "bob"), *turns_of("e", "eve")])
LABELS = table(FEEDBACK_LABELS, [{"turn_id": "b:4", "conversation_id": "b", "turn": 3, "label": "positive"}])
PEOPLE = table(USERS, [{"user_id": name, "split": "test" if name == "eve" else "train"} for name in ("ann", "bob", "eve")])
LINES = table(
    PERSONAS,
    [
        {"persona_line_id": "p1", "user_id": "ann", "slot": "length", "line": "wants short answers", "valid_from": START},
        {"persona_line_id": "p2", "user_id": "bob", "slot": "length", "line": "too late", "valid_from": START + timedelta(days=1)},
    ],
)


def said(reply: str, kind: str, text: str | None = None, value: float | None = None, giver: str = "end_user") -> dict[str, Any]:
    conversation, index = reply.split(":")
    return {
        "feedback_id": f"{reply}/{kind}/{value}/{text}/{giver}",
        "conversation_id": conversation,
        "user_id": {"a": "ann", "b": "bob", "e": "eve"}[conversation],
        "month": "2026-10",
        "turn_id": f"{conversation}:{int(index) - 1}",
        "reply_id": reply,
        "kind": kind,
        "value": value,
        "text": text,
        "giver": giver,
    }


def made(*given: dict[str, Any], **settings: Any) -> pl.DataFrame:
    chosen = ExplicitPairSettings(**settings)
    feedback = table(EXPLICIT_FEEDBACK, list(given))
    pairs = explicit_pairs(feedback, TURNS_OF_ALL, LABELS, PEOPLE, LINES, chosen, personas_at)
    assert pairs.schema == EXPLICIT_PAIRS.schema
    assert pairs["pair_id"].is_unique().all()
    assert outright_preferences_are_conserved(pairs.lazy(), feedback.lazy(), PEOPLE.lazy(), chosen).passed
    return pairs


def test_each_kind_prefers_what_the_user_preferred() -> None:
    pairs = made(said("a:1", "edit", "Sun, please."), said("a:1", "regeneration", OTHER), said("a:1", "choice", OTHER))
    assert pairs.sort("kind").select("kind", "chosen", "rejected", "evidence", "model", "is_kept", "is_off_policy").rows() == [
        ("choice", SAID[0][1], OTHER, "strong", "logged", True, True),
        ("edit", "Sun, please.", SAID[0][1], "strong", "end_user", True, True),
        ("regeneration", SAID[0][1], OTHER, "weak", "logged", True, True),
    ]


def test_the_prompt_is_the_logged_history_and_the_persona_that_of_the_request() -> None:
    later = made(said("a:3", "edit", "Twice."), said("b:3", "edit", "Twice.")).sort("turn_id").to_dicts()
    history = [
        {"role": "user", "content": SAID[0][0]},
        {"role": "assistant", "content": SAID[0][1]},
        {"role": "user", "content": SAID[1][0]},
    ]
    assert [row["prompt"] for row in later] == [history, history]
    assert [(row["persona"], row["persona_line_ids"]) for row in later] == [("- wants short answers", ["p1"]), ("", [])]
    (first,) = made(said("a:1", "edit", "Sun.")).to_dicts()
    assert (first["prompt"], first["persona"]) == (history[:1], "")


@pytest.mark.parametrize(
    ("given", "evidence", "reasons"),
    [
        ([said("a:1", "regeneration", OTHER)], "weak", []),
        ([said("a:1", "regeneration", OTHER, -1.0)], "strong", []),
        ([said("a:1", "regeneration", OTHER), said("a:1", "thumb", value=1.0)], "strong", []),
        ([said("a:1", "regeneration", OTHER), said("a:1", "thumb", value=1.0, giver="model")], "weak", []),
        ([said("b:3", "regeneration", OTHER)], "strong", []),  # "Thanks!" comes next
        ([said("b:1", "regeneration", OTHER)], "weak", []),
        ([said("a:1", "regeneration", OTHER, 1.0)], "weak", ["contradicted"]),
        ([said("a:1", "regeneration", OTHER), said("a:1", "thumb", value=-1.0)], "weak", ["contradicted"]),
        ([said("a:1", "choice", OTHER), said("a:1", "thumb", value=-1.0)], "strong", ["contradicted"]),
        ([said("a:1", "edit", OTHER), said("a:1", "thumb", value=-1.0)], "strong", []),
    ],
)
def test_a_regeneration_alone_is_weak_evidence(given: list[dict[str, Any]], evidence: str, reasons: list[str]) -> None:
    (row,) = made(*given).to_dicts()
    assert (row["evidence"], row["drop_reasons"], row["is_kept"]) == (evidence, reasons, not reasons)
    (strict,) = made(*given, weak=False).to_dicts()
    assert strict["drop_reasons"] == [*reasons, *(["weak_evidence"] if evidence == "weak" else [])]


@pytest.mark.parametrize(
    ("given", "reasons"),
    [
        (said("a:1", "regeneration", ""), ["empty_original", "length_ratio"]),
        (said("a:1", "regeneration", None), ["empty_original", "length_ratio"]),
        (said("a:1", "regeneration", " \n"), ["empty_original", "length_ratio"]),
        (said("a:1", "edit", "  "), ["empty_rewrite"]),
        (said("a:1", "regeneration", "Plant it in sun."), ["identical_sides"]),
        (said("a:1", "regeneration", "Plant  it in\nsun. "), ["identical_sides"]),
        (said("a:1", "regeneration", "Plant it in sun!"), []),
        (said("a:1", "regeneration", "P"), ["length_ratio"]),
        (said("a:1", "choice", "I'm sorry, but I can't help with that."), ["original_is_refusal"]),
        (said("a:1", "edit", "I apologize for the confusion. Plant it in sun."), ["mentions_feedback"]),
    ],
)
def test_every_reason_against_a_pair_is_told(given: dict[str, Any], reasons: list[str]) -> None:
    (row,) = made(given).to_dicts()
    assert row["drop_reasons"] == reasons
    assert row["is_kept"] is not bool(reasons)


def test_users_may_prefer_another_language() -> None:
    spanish = said("a:3", "edit", "Riéguela dos veces por semana en verano, temprano por la mañana, y menos veces en invierno.")
    assert made(spanish)["drop_reasons"].to_list() == [[]]
    assert made(spanish, filters=SideFilterSettings())["drop_reasons"].to_list() == [["language_mismatch"]]


def test_limits_are_settings() -> None:
    nearly = said("a:1", "regeneration", "Plant it in sun!")
    assert made(nearly, filters=SideFilterSettings(max_similarity=0.9))["drop_reasons"].to_list() == [["nearly_identical_sides"]]
    assert made(said("a:1", "regeneration", "P"), filters=SideFilterSettings(max_length_ratio=None))["is_kept"].to_list() == [True]


def test_only_training_users_and_who_counts_give_pairs() -> None:
    given = [
        said("e:1", "edit", "Sun."),
        said("a:1", "edit", "Sun.", giver="staff"),
        said("a:1", "thumb", value=1.0),
        said("a:1", "comment"),
    ]
    assert made(*given).equals(EXPLICIT_PAIRS.empty())
    assert made(*given, givers=(Giver.STAFF,)).select("turn_id", "giver", "model").rows() == [("a:0", "staff", "staff")]


def test_the_account_counts_every_pair_once() -> None:
    pairs = made(
        said("a:1", "regeneration", OTHER), said("a:1", "regeneration", ""), said("b:3", "regeneration", OTHER), said("a:1", "edit", "x")
    )
    assert account(pairs).rows() == [
        ("edit", "strong", "length_ratio", 1),
        ("regeneration", "strong", "kept", 1),
        ("regeneration", "weak", "empty_original", 1),
        ("regeneration", "weak", "kept", 1),
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda pairs: pairs.head(1), "lost_feedback"),
        (lambda pairs: pairs.with_columns(feedback_id=pl.lit("x")), "pairs_of_no_feedback"),
        (lambda pairs: pl.concat([pairs, pairs.head(1)]), "repeated_pairs"),
        (lambda pairs: pairs.with_columns(chosen=pl.lit("x"), rejected=pl.lit("x")), "changed_texts"),
        (lambda pairs: pairs.with_columns(is_kept=~pl.col("is_kept")), "undecided_pairs"),
    ],
)
def test_what_is_lost_made_up_or_changed_does_not_pass(change: Any, fault: str) -> None:
    given = [said("a:1", "regeneration", OTHER), said("a:1", "edit", "Sun.")]
    found = outright_preferences_are_conserved(
        change(made(*given)).lazy(), table(EXPLICIT_FEEDBACK, given).lazy(), PEOPLE.lazy(), ExplicitPairSettings()
    )
    assert not found.passed
    assert found.numbers[fault] > 0


@pytest.mark.parametrize("fault", ["", "lost", "changed"])
def test_the_asset_is_made_and_held_to_account(tmp_path: Path, fault: str) -> None:
    profile, lake, month = profiles.load("sample"), Lake(root=str(tmp_path)), "2026-10"
    given = [said("a:1", "regeneration", OTHER), said("a:3", "edit", "Twice a week."), said("e:1", "edit", "Sun.")]
    labels = LABELS.with_columns(month=pl.lit(month))
    tables = {"explicit_feedback": table(EXPLICIT_FEEDBACK, given), "turns": TURNS_OF_ALL, "feedback_labels": labels}
    for name, frame in tables.items():
        lake.write(name, frame, [month])
    lines = LINES.with_columns(evidence=pl.lit([], dtype=pl.List(pl.String())), writer=pl.lit(CORRECTION))
    for name, frame in (("users", PEOPLE), ("personas", lines)):
        lake.write(name, frame)
    checks = [each for value in vars(preferences).values() if isinstance(value, list) for each in value if each.asset == "explicit_pairs"]
    if fault:
        told = [given[0]] if fault == "lost" else [given[0] | {"text": "x"}, given[1]]
        frame = made(*told)

        @dg.asset(partitions_def=declare.Place(profile).months, name="explicit_pairs")
        def asset() -> dg.MaterializeResult[pl.DataFrame]:
            return metadata.result("explicit_pairs", frame)

        declared = [asset]
    else:
        declared = built(profile, preferences.explicit_pairs)
    done = dg.materialize(
        [*declared, *built(profile, *checks), *upstream(profile, *tables, "users", "personas")],
        selection=dg.AssetSelection.assets("explicit_pairs"),
        partition_key=month,
        instance=knowing(month),
        resources={"io_manager": TableIOManager(root=lake.root), "lake": lake, "settings": Settings(profile)},
        raise_on_error=False,
    )
    found = {evaluation.check_name: evaluation.passed for evaluation in done.get_asset_check_evaluations()}
    assert found == {
        "matches_table": True,
        "chosen_differs_from_rejected": True,
        "personas_precede_use": True,
        "outright_preferences_are_conserved": not fault,
    }
    if not fault:
        shown = done.asset_materializations_for_node("explicit_pairs")[0].metadata
        assert shown["kept_pairs"].value == 2
        assert "| regeneration | weak | kept | 1 |" in str(shown["account"].value)
        assert len(lake.scan("explicit_pairs").collect()) == 2
