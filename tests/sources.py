"""Made-up sources, written and read: what tests of layouts look at.

What belongs here: writing rows to files, what the rows of several layouts have in them, and one view of what became of them. What does not:
any layout's rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts

NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Read:
    """What became of the rows of a source.

    Attributes:
        kind: The layout that was recognised.
        dialogues: Messages of each accepted conversation, as (u or a, text), by conversation id and sorted by it.
        ingested: All of it, as tables.
        rejected: Reason of each rejected row by its id.
        details: What exactly is wrong with each rejected row.
        superseded: Cause of each superseded row by its id.
        feedback: (target, kind, value, text, giver), sorted.
        given_at: When each of these was given.
        rows: What was read, in the normalised form, sorted by file and number.
    """

    kind: SourceKind
    dialogues: dict[str, list[tuple[str, str]]]
    ingested: Ingested
    rejected: dict[str, str]
    details: dict[str, str]
    superseded: dict[str, str]
    feedback: list[tuple[Any, ...]]
    given_at: list[datetime | None]
    rows: pl.DataFrame

    @property
    def conversations(self) -> pl.DataFrame:
        """Accepted rows."""
        return self.ingested.conversations

    @property
    def by_users(self) -> list[tuple[Any, ...]]:
        """Feedback as (target, kind, value, text), where all of it must be of end users."""
        assert {giver for *_, giver in self.feedback} <= {"end_user"}
        return [each[:-1] for each in self.feedback]

    def row(self, conversation: str) -> dict[str, Any]:
        """The row that a conversation was kept as, before it was judged."""
        kept = self.rows.filter(pl.col("superseded").is_null(), pl.col("unreadable").is_null(), conversation_id=conversation)
        return kept.row(0, named=True)

    def ids(self, conversation: str) -> list[str | None]:
        """The ids of its messages."""
        return [message["id"] for message in self.row(conversation)["messages"]]

    def times(self, conversation: str) -> list[datetime | None]:
        """The times of its messages."""
        return [message["sent_at"] for message in self.row(conversation)["messages"]]


def lines(file: Path, rows: Iterable[object]) -> Path:
    """Write JSON lines; bytes are a line as they are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return file


def read(location: Path, *rows: object, kind: SourceKind | None = None, **changes: Any) -> Read:
    """Recognise, read and judge a source, after writing rows into it if there are any; every row is accounted for once."""
    if rows:
        lines(location / "a.jsonl", rows)
    kind = kind or detect_kind(str(location))
    settings = SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START, **{"assumed_model": "assumed", **changes})
    found = ingest(settings, list(month_counts(settings, now=NOW)), "salt", now=NOW)
    assert len(found.conversations) + len(found.quarantine) + len(found.superseded) == sum(found.rows_in.values())
    source = SourceRows(settings, now=NOW)
    given = sorted(source.feedback().select("target", "kind", "value", "text", "giver", "given_at").collect().rows(), key=str)
    return Read(
        kind,
        {
            name: [(message["role"][0], message["content"]) for message in messages]
            for name, messages in found.conversations.select("conversation_id", "messages").sort("conversation_id").iter_rows()
        },
        found,
        dict(found.quarantine.select("row_id", "reason").iter_rows()),
        dict(found.quarantine.select("row_id", "detail").iter_rows()),
        dict(found.superseded.select("row_id", "cause").iter_rows()),
        [each[:-1] for each in given],
        [each[-1] for each in given],
        source.collect(lambda scanned: scanned).sort("source_file", "row_number"),
    )


def talk(*texts: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant by turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def turns(*texts: str) -> list[tuple[str, str]]:
    """The same as `Read.dialogues` has them."""
    return [(message["role"][0], message["content"]) for message in talk(*texts)]


def completion(name: str, text: str | None, created: int = 1_790_000_000, **message: object) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": name,
        "object": "chat.completion",
        "created": created,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"total_tokens": 3},
    }
