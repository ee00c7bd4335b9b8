"""What `rlhi inspect` says of a source before any run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.conversations import inspection
from rlhi_dagster.conversations.inspection import Inspection, inspect
from rlhi_dagster.conversations.sources import SourceKind

TALK = [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "A plum."}]


def inspected(folder: Path, *rows: dict[str, object]) -> Inspection:
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return inspect(str(folder), lambda texts: ["en"] * len(texts))


def test_columns_are_told_that_are_read_and_that_are_not(tmp_path: Path) -> None:
    row = {"id": "c1", "user": "u", "created": "2026-10-01", "model": "m", "messages": TALK, "plan": "pro", "closing_time": "2026-10-02"}
    found = inspected(tmp_path, row)
    assert found.kind is SourceKind.MESSAGES
    assert found.columns_used == ("id", "user", "created", "model", "messages")
    assert (found.columns_unused, found.columns_in_doubt) == (("plan", "closing_time"), ("closing_time",))


def test_columns_that_a_layout_reads_under_other_names_are_told_as_read(tmp_path: Path) -> None:
    trace = {"id": "t1", "timestamp": "2026-10-01T10:00:00Z", "name": "chat", "userId": "u", "sessionId": "s", "release": "7"}
    found = inspected(tmp_path, trace | {"input": "Name a fruit.", "output": "A plum.", "metadata": {}, "user-feedback": [1]})
    assert found.kind is SourceKind.LANGFUSE
    assert found.columns_used == ("id", "timestamp", "userId", "sessionId", "input", "output", "user-feedback")
    assert found.columns_unused == ("name", "release", "metadata")


ROWS = [{"id": f"c{number}", "created": "2026-10-01", "model": "m", "messages": TALK} for number in range(25)]
WRITTEN: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda file: file.write_text("\n".join(map(json.dumps, ROWS))),
    "a.ndjson": lambda file: file.write_text("\n\n".join(map(json.dumps, ROWS)) + "\n"),
    "a.json": lambda file: file.write_text(json.dumps(ROWS)),
    "b.json": lambda file: file.write_text(json.dumps(ROWS, indent=1)),
    "c.json": lambda file: file.write_text(json.dumps({"data": ROWS, "meta": {}})),
    "d.json": lambda file: file.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-16"),
    "a.parquet": lambda file: pl.DataFrame(ROWS).write_parquet(file),
    "a.arrow": lambda file: pl.DataFrame(ROWS).write_ipc(file),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_rows_are_counted_where_only_a_part_is_looked_at(name: str, tmp_path: Path) -> None:
    WRITTEN[name](tmp_path / name)
    found = inspect(str(tmp_path), lambda texts: ["en"] * len(texts), at_most=10)
    assert (found.rows, found.is_rows_estimated, found.looked_at) == (25, False, 10)
    assert inspect(str(tmp_path), lambda texts: ["en"] * len(texts)).looked_at == 25


def test_rows_are_estimated_where_counting_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_SECONDS_OF_COUNTING", -1.0)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS * 400))
    found = inspect(str(tmp_path), lambda texts: ["en"] * len(texts), at_most=10)
    assert found.is_rows_estimated
