"""The asset as a run materializes it: with either writer, with corrections, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import personas as module
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import CONVERSATIONS, FEEDBACK_LABELS, TURNS, Table
from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.personas.snapshots import personas_at
from tests.built import built, playing, upstream

START = datetime(2023, 4, 1, tzinfo=UTC)
COMMIT = "1" * 40


def fill(declared: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(declared.columns), "month": "2023-04", **record} for record in records], schema=declared.schema)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(root=str(tmp_path / "lake"))
    texts = ["How do I grow mint?", "Too long, please shorten it."]
    turns = [
        {"turn_id": f"c:{n}", "conversation_id": "c", "user_id": "ann", "turn": n, "asked_at": START + timedelta(minutes=n), "prompt": text}
        for n, text in enumerate(texts, 1)
    ]
    lake.write("turns", fill(TURNS, turns), ["2023-04"])
    lake.write("feedback_labels", fill(FEEDBACK_LABELS, [{"turn_id": "c:2", "label": "reattempt_with_feedback"}]), ["2023-04"])
    lake.write("conversations", fill(CONVERSATIONS, [{"conversation_id": "c", "language": "Spanish"}]), ["2023-04"])
    return lake


def run(
    lake: Lake, reply: Mapping[str, Any] | None = None, writer: Any = "extractive", **chosen: Any
) -> tuple[pl.DataFrame, dict[str, Any], bool]:
    """Materialize; return the lines, the metadata, and whether all checks passed."""

    root = Path(lake.root).parent
    personas = PersonaSettings(**{"wish_conversations": 1, **chosen})
    profile = playing(profiles.load("sample"), persona_writer=writer).model_copy(update={"personas": personas})
    profile = profile.placed(root, {})

    class FakeWorkers(Workers):
        def embed(self, context: dg.AssetExecutionContext, encoder: str, texts: Sequence[str]) -> np.ndarray:
            raise AssertionError("one request a user needs no vectors")

        def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
            ((model, requests),) = batches
            assert (model.identity, sampling.temperature, engine) == (f"writer@{COMMIT[:16]}", 0.0, profile.engine)
            return [[ChatAnswer(json.dumps(reply), None, "stop", 0, 0, call_id="key") for _ in requests]], CallStats(
                requests=len(requests), answered=len(requests)
            )

    outcome = dg.materialize(
        [
            *built(profile, module.personas, module.rest_on_messages, *module.table_checks),
            *upstream(profile, "turns", "feedback_labels", "conversations"),
        ],
        selection=dg.AssetSelection.assets("personas"),
        resources={
            "io_manager": TableIOManager(root=lake.root),
            "settings": Settings(profile),
            "lake": lake,
            "workers": FakeWorkers(root),
        },
    )
    (event,) = outcome.asset_materializations_for_node("personas")
    passed = [evaluation.passed for evaluation in outcome.get_asset_check_evaluations()]
    assert len(passed) == 2
    return lake.scan("personas").collect(), {name: value.value for name, value in event.metadata.items()}, all(passed)


def test_the_extractive_writer_calls_no_model(lake: Lake) -> None:
    lines, told, passed = run(lake)
    assert passed
    assert sorted(lines["line"]) == ["Prefers short answers.", "Writes in Spanish."]
    assert told["users_with_persona"] == 1
    assert told["current_lines"] == 2
    assert "| extractive | 2 |" in told["lines_by_writer"]
    assert "| 2 | 1 |" in told["users_by_current_lines"]
    assert not [name for name in told if name.startswith(("calls/", "corrections/"))]


@pytest.mark.parametrize(("writer", "line"), [("extractive", "Prefers short answers."), ({"hub": f"writer@{COMMIT}"}, "Likes it short.")])
@pytest.mark.parametrize("is_timed", [True, False])
def test_a_last_word_makes_a_line_only_if_it_is_known_when_it_was_said(lake: Lake, is_timed: bool, writer: Any, line: str) -> None:
    last_word = {"message_id": "c:2", "role": "user", "content": "…", "sent_at": START + timedelta(minutes=2) if is_timed else None}
    lake.write(
        "conversations", fill(CONVERSATIONS, [{"conversation_id": "c", "has_last_word": True, "messages": [last_word]}]), ["2023-04"]
    )
    reply = {"withdrawn": [], "revised": [], "new": [{"line": line, "citations": [{"message": 2, "quote": "shorten it"}]}]}
    lines, _, passed = run(lake, reply, writer=writer)
    assert passed
    moments = pl.DataFrame({"user_id": ["ann"] * 2, "asked_at": [START + timedelta(minutes=m) for m in (2, 3)]})
    shown = personas_at(lines, moments.cast({"asked_at": TURNS.schema["asked_at"]}))["persona"].to_list()
    assert shown == ["", f"- {line}" if is_timed else ""], "for the next conversation, not for the message itself"


def test_a_model_writes_and_tells_what_was_dropped_and_what_it_cost(lake: Lake) -> None:
    citations = [{"message": 2, "quote": "shorten it"}, {"message": 2, "quote": "make it brief"}]
    reply = {"withdrawn": [], "revised": [], "new": [{"line": "Prefers short answers.", "citations": citations}]}
    lines, told, passed = run(lake, reply, writer={"hub": f"writer@{COMMIT}"})
    assert passed
    assert lines.select("slot", "line", "evidence", "quotes", "writer", "call_id").rows() == [
        ("line-1", "Prefers short answers.", ["c:2"], ["shorten it"], f"writer@{COMMIT[:16]}", "key")
    ]
    assert "| citation_not_verbatim | 1 |" in told["dropped"]
    assert told["calls/answered"] == 1


def test_corrections_lie_beside_the_outputs_and_are_counted(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "- {user_id: ann, slot: length, at: 2023-04-01, line: Likes it long.}\n- {user_id: bo, slot: a, delete: true}"
    )
    lines, told, passed = run(lake, corrections="mine.yaml")
    assert passed
    assert sorted(lines["line"]) == ["Likes it long.", "Writes in Spanish."]
    assert (told["corrections/applied"], told["corrections/unknown_users"]) == (1, 1)
    with pytest.raises(dg.Failure, match=r"no file .*other.yaml"):
        run(lake, corrections="other.yaml")
