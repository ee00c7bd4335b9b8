"""Files of explicit feedback beside logs: which rows are theirs, what they say, and on which reply, for any layout and file format."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.inspection import inspect
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, detect_kind, feedback_file, month_counts
from rlhi_dagster.conversations.sources.cells import MistypedError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
AT = datetime(2026, 10, 2, 9, tzinfo=UTC)
SAID = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "More"), ("assistant", "Here")]
GIVEN: list[dict[str, Any]] = [
    {"conversation_id": "c1", "message_index": 2, "kind": "thumb", "value": 1, "given_at": "2026-10-02T09:00:00Z"},
    {"conversation_id": "c1", "message_index": 4, "kind": "edit", "text": "Here you are", "giver": "staff"},
    {"conversation_id": "c2", "message_index": 2, "kind": "regeneration", "text": ""},
    {"conversation_id": "c2", "message_index": 3, "kind": "thumb", "value": -1},
    {"conversation_id": "c2", "message_index": 9, "kind": "thumb", "value": -1},
    {"conversation_id": "c9", "message_index": 2, "kind": "thumb", "value": -1},
]
PLACED = [
    ("c1:2", "thumb", 1.0, None, "end_user"),
    ("c1:4", "edit", None, "Here you are", "staff"),
    ("c2:2", "regeneration", None, "", "end_user"),
]


def messages() -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in SAID]


def wildchat(folder: Path, form: str) -> SourceKind:
    rows = [
        {"conversation_hash": name, "model": "m", "timestamp": AT, "conversation": messages(), "hashed_ip": name, "toxic": False}
        for name in ("c1", "c2")
    ]
    if form == "parquet":
        pl.DataFrame(rows).write_parquet(folder / "logs.parquet")
    else:
        (folder / "logs.jsonl").write_text("\n".join(json.dumps(row | {"timestamp": AT.isoformat()}) for row in rows))
    return SourceKind.WILDCHAT


def chats(folder: Path, form: str) -> SourceKind:
    rows = [{"id": name, "model": "m", "created": AT, "user": name, "messages": messages()} for name in ("c1", "c2")]
    if form == "parquet":
        pl.DataFrame(rows).write_parquet(folder / "logs.parquet")
    else:
        (folder / "logs.jsonl").write_text("\n".join(json.dumps(row | {"created": AT.isoformat()}) for row in rows))
    return SourceKind.MESSAGES


def run(location: Path, kind: SourceKind) -> Ingested:
    assert detect_kind(str(location)) is kind
    settings = SourceSettings(name="s", kind=kind, location=str(location), assumed_start=AT)
    counts = month_counts(settings, now=NOW)
    found = ingest(settings, list(counts), "salt", now=NOW)
    assert len(found.conversations) + len(found.quarantine) + len(found.superseded) == sum(counts.values())
    return found


@pytest.mark.parametrize("logs", [wildchat, chats])
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("feedback", ["a.jsonl", "z.json", "a.parquet"])
def test_feedback_beside_logs_is_on_its_reply(tmp_path: Path, logs: Any, form: str, feedback: str) -> None:
    kind = logs(tmp_path, form)
    if feedback.endswith(".parquet"):
        pl.DataFrame(GIVEN, schema_overrides={"value": pl.Float64}, infer_schema_length=None).write_parquet(tmp_path / feedback)
    elif feedback.endswith(".jsonl"):
        (tmp_path / feedback).write_text("\n".join(map(json.dumps, GIVEN)))
    else:
        (tmp_path / feedback).write_text(json.dumps(GIVEN))
    found = run(tmp_path, kind)
    assert found.conversations["conversation_id"].to_list() == ["c1", "c2"]
    assert found.quarantine.is_empty()
    # The last row is about a conversation that is not there: it may be one of a forgotten user, so its id is not repeated.
    about = [*(row["conversation_id"] for row in GIVEN[:-1]), None]
    assert found.superseded.select("conversation_id", "cause").rows() == [(name, "explicit feedback") for name in about]
    placed = found.explicit_feedback.sort("reply_id", "kind").select("reply_id", "kind", "value", "text", "giver")
    assert placed.rows() == PLACED
    assert found.explicit_feedback.sort("reply_id")["given_at"].to_list() == [AT, None, None]


def test_a_messages_own_id_names_it(tmp_path: Path) -> None:
    row = {"id": "c1", "model": "m", "created": AT.isoformat(), "user": "u"}
    said = [{"id": f"m{number}", "role": role, "content": text} for number, (role, text) in enumerate(SAID)]
    (tmp_path / "logs.jsonl").write_text(json.dumps(row | {"messages": said}))
    given = [{"conversation_id": "c1", "message_id": name, "kind": "thumb", "value": "down"} for name in ("m4", "gone", "c1:2")]
    (tmp_path / "feedback.jsonl").write_text("\n".join(map(json.dumps, given)))
    found = run(tmp_path, SourceKind.MESSAGES)
    assert found.explicit_feedback.sort("reply_id").select("reply_id", "value").rows() == [("c1:2", -1.0), ("c1:4", -1.0)]


def test_a_look_at_the_source_counts_feedback_by_kind_and_giver(tmp_path: Path) -> None:
    wildchat(tmp_path, "parquet")
    (tmp_path / "feedback.jsonl").write_text("\n".join(map(json.dumps, GIVEN)))
    found = inspect(str(tmp_path), lambda texts: ["en"] * len(texts), now=NOW)
    assert found.feedback == {("thumb", "end_user"): 4, ("edit", "staff"): 1, ("regeneration", "end_user"): 1}
    assert (found.accepted, dict(found.superseded)) == (2, {"explicit feedback": 6})
    assert {"kind", "value", "message_index"} <= set(found.columns_used)


def test_feedback_alone_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "feedback.jsonl").write_text("\n".join(map(json.dumps, GIVEN)))
    with pytest.raises(ValueError, match=r"feedback\.jsonl has feedback on conversations, and none of these"):
        detect_kind(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": "up"}, ("thumb", 1.0)),
        ({"value": False}, ("thumb", -1.0)),
        ({"value": "0"}, ("thumb", -1.0)),
        ({"kind": " Rating", "value": "4.5"}, ("rating", 4.5)),
        ({"kind": "regeneration", "value": "down"}, ("regeneration", -1.0)),
        ({"message_index": 2.0}, ("thumb", 1.0)),
        ({"kind": "like"}, "kind: none of thumb, rating, comment, edit, regeneration, choice"),
        ({"value": 5}, "value: no thumb"),
        ({"value": None}, "value: no thumb"),
        ({"kind": "rating", "value": "good"}, "value: no number"),
        ({"kind": "edit"}, "text: none, which edit needs"),
        ({"kind": "comment", "text": ["x"]}, "text: no text"),
        ({"message_index": -1}, "message_index: no position"),
        ({"message_index": None}, "message_index: no position"),
        ({"conversation_id": None}, "message_index: no position"),
        ({"giver": "boss"}, "giver: none of end_user, staff, model"),
        ({"given_at": "soon"}, "given_at: "),
    ],
)
def test_what_a_row_says_or_what_is_wrong_with_it(changes: dict[str, Any], said: Any) -> None:
    row = GIVEN[0] | changes
    assert feedback_file.fits(row)
    if isinstance(said, str):
        with pytest.raises(MistypedError, match=f"^{said}"):
            feedback_file.read(row)
        return
    (given,) = feedback_file.read(row).feedback
    assert (given.target, given.kind, given.value) == ("c1:2", *said)


def test_a_row_that_cannot_be_read_is_quarantined_with_its_column(tmp_path: Path) -> None:
    kind = wildchat(tmp_path, "parquet")
    (tmp_path / "feedback.jsonl").write_text(json.dumps(GIVEN[0] | {"value": "meh"}))
    found = run(tmp_path, kind)
    assert found.quarantine.select("row_id", "reason", "detail").rows() == [
        ("feedback.jsonl#0", "mistyped_field", "value: no thumb, such as 1 and -1, up and down")
    ]
