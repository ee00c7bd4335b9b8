"""``import rlhi_dagster as rlhi``: what is read from frames, labelled and paired, and that nothing heavy is loaded for it."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import rlhi_dagster as rlhi
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.feedback.labels.metrics import LABELS

LONG, SHORT = "It is long. It goes on. It has a third sentence, and a fourth one.", "- It is short\n- It is done"
EDITED = "It is what I wrote, in one long line of prose."
ROWS: list[dict[str, Any]] = [
    {
        "id": "c1",
        "user": "ann",
        "created": "2026-10-01T10:00:00Z",
        "messages": [("user", "What is it?"), ("assistant", LONG), ("user", "Use bullet points."), ("assistant", SHORT)],
    },
    {
        "id": "c2",
        "user": "ann",
        "created": "2026-10-05T10:00:00Z",
        "messages": [("user", "What was it?"), ("assistant", LONG), ("user", "Use bullet points."), ("assistant", SHORT)],
    },
    {"id": "c3", "user": "bob", "created": "2026-10-06T10:00:00Z", "messages": [("user", "Hello?")]},
]
FRAME = pl.DataFrame([{**row, "messages": [{"role": role, "content": text} for role, text in row["messages"]]} for row in ROWS])


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follow-up that speaks of bullets is a re-attempt with feedback, every other one a new request."""

    def embed(self: MiniLM, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 384), np.float32)

    def chances(self: FeedbackClassifier, follow_ups: pl.DataFrame, embed: Callable[..., Any]) -> np.ndarray:
        label = ["reattempt_with_feedback" if "bullet" in text else "new_request" for text in follow_ups["follow_up"]]
        return np.array([[0.9 if each == name else 0.02 for each in LABELS] for name in label])

    monkeypatch.setattr(MiniLM, "embed", embed)
    monkeypatch.setattr(FeedbackClassifier, "predict_proba", chances)


def test_every_row_of_a_frame_is_accounted_for() -> None:
    logs = rlhi.read(FRAME, salt="s")
    assert logs.account == "3 rows in = 2 accepted + 1 quarantined + 0 superseded"
    assert logs.ingested.quarantine.select("row_id", "reason").rows() == [("row#2", "unanswered_only")]


def test_labels_with_the_text_that_they_are_about() -> None:
    labels = rlhi.label(rlhi.read(FRAME, salt="s"), text=True)
    assert labels.select("conversation_id", "message_index", "label", "span", "request", "reply", "follow_up").row(0) == (
        *("c1", 2, "reattempt_with_feedback", "Use bullet points", "What is it?", LONG, "Use bullet points."),
    )
    assert len(labels) == 2
    assert "follow_up" not in rlhi.label(rlhi.read(FRAME, salt="s")).columns


def test_lines_hold_from_their_message_on() -> None:
    logs = rlhi.read(FRAME, salt="s")
    assert "Prefers bullet points." in rlhi.persona_lines(logs)["line"].to_list()
    assert len(rlhi.persona_lines(logs, at=datetime(2026, 9, 1, tzinfo=UTC))) == 0
    assert rlhi.persona_lines(logs, at=datetime(2026, 11, 1, tzinfo=UTC))["line"].to_list() == ["Prefers bullet points."]


def test_settings_of_personas_are_those_of_a_profile() -> None:
    assert len(rlhi.persona_lines(rlhi.read(FRAME, salt="s", personas={"extracts": ["languages"]}))) == 0
    with pytest.raises(ValueError, match="extract"):
        rlhi.persona_lines(rlhi.read(FRAME, salt="s", personas={"extract": ["wishes"]}))


def test_a_reply_to_feedback_is_a_pair_with_the_persona_of_its_moment() -> None:
    pairs = rlhi.pairs(rlhi.read(FRAME, salt="s", personas={"wish_conversations": 1})).sort("asked_at")
    assert pairs.select("source", "persona", "follow_up", "chosen", "rejected", "is_kept").rows() == [
        ("rewrites_logged", "", "Use bullet points.", SHORT, LONG, True),
        ("rewrites_logged", "- Prefers bullet points.", "Use bullet points.", SHORT, LONG, True),
    ]
    assert pairs["prompt"][0].to_list() == [{"role": "user", "content": "What is it?"}]
    assert len(rlhi.pairs(rlhi.read(FRAME, salt="s"), min_probability=0.95)) == 0


def test_edits_and_regenerations_of_the_logs_are_pairs(tmp_path: Path) -> None:
    FRAME.write_ndjson(tmp_path / "logs.jsonl")
    edit = {"conversation_id": "c1", "message_index": 1, "kind": "edit", "text": EDITED}
    (tmp_path / "clicks.jsonl").write_text(json.dumps(edit))
    pairs = rlhi.pairs(rlhi.read(tmp_path, salt="s")).filter(source="edits")
    assert pairs.select("chosen", "rejected", "evidence", "follow_up").rows() == [(EDITED, LONG, "strong", None)]


def test_results_are_frames_of_the_library_that_was_given() -> None:
    import datasets

    ours = rlhi.pairs(rlhi.read(FRAME, salt="s"))
    of_pandas = rlhi.pairs(rlhi.read(FRAME.to_pandas(), salt="s"))
    of_datasets = rlhi.pairs(rlhi.read(datasets.Dataset.from_polars(FRAME), salt="s"))
    assert (type(of_pandas), type(of_datasets)) == (pd.DataFrame, datasets.Dataset)
    assert of_pandas["pair_id"].tolist() == of_datasets["pair_id"][:] == ours["pair_id"].to_list()
    assert rlhi.label(rlhi.read(FRAME.lazy(), salt="s")).equals(rlhi.label(rlhi.read(FRAME, salt="s")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "list is no frame that can be read"),
        (pl.DataFrame({"a": [1]}), "^nothing at the frame can be read as conversations: the frame has objects with a"),
        (pl.DataFrame({"a": [object()]}), "cannot be read as a table"),
        ("", "location of the source is empty"),
    ],
)
def test_what_is_no_log_gets_a_sentence(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rlhi.read(given)


def test_columns_of_other_names_need_their_layout() -> None:
    renamed = FRAME.rename({"messages": "transcript"})
    assert len(rlhi.read(renamed, kind="messages", fields={"messages": "transcript"}, salt="s").turns) == 4
    with pytest.raises(ValueError, match="kind='messages'"):
        rlhi.read(renamed, fields={"messages": "transcript"})


def test_agreement_with_labels_of_a_frame() -> None:
    gold = pl.DataFrame({"conversation_id": ["c1", "c2"], "message_index": [2, 2], "label": ["reattempt_with_feedback", "new_request"]})
    found = rlhi.agreement(rlhi.read(FRAME, salt="s"), gold)
    assert (found.matched, found.scores["accuracy"]["value"]) == (2, 0.5)


def test_a_table_of_a_run_is_read_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="nothing is no table: there are"):
        rlhi.table("nothing")
    with pytest.raises(ValueError, match="users"):
        rlhi.table("users", "sample").collect()


def test_no_name_is_hidden_by_a_part_of_the_package() -> None:
    parts = {module.name for module in pkgutil.iter_modules(rlhi.__path__)}
    assert not parts & set(rlhi.__all__)
    assert all(getattr(rlhi, name).__doc__ for name in rlhi.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="nothing"):
        _ = rlhi.nothing  # type: ignore[attr-defined]


def test_importing_loads_nothing() -> None:
    code = "import sys, rlhi_dagster; print({'polars', 'dagster', 'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
    code = "import sys, rlhi_dagster; rlhi_dagster.read; print({'torch', 'pandas', 'datasets', 'transformers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
