"""Folders of files of several formats and kinds, with damage and growing histories: no row and no conversation is lost."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts

NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
Row = dict[str, Any]

BROKEN = [
    b'{"id": "cut", "messages": [',
    b"nonsense",
    b"\xff\xfe",
    b"[1, 2]",
    b"3",
    b"null",
    b'"text"',
    b'{"id": 1}',
    b'{"messages": "no list"}',
    b"{}",
]


@dataclass
class Written:
    """A file: its rows, each with the user's words in it, and how many another program counts."""

    words: list[list[str]]
    rows: int


class Logs:
    """Rows whose words occur nowhere else but in what continues them."""

    def __init__(self) -> None:
        self._numbers = count()

    def history(self, turns: int) -> tuple[list[Row], list[str]]:
        messages, words = [], []
        for _ in range(turns):
            number = next(self._numbers)
            words.append(f"question {number}")
            messages += [{"role": "user", "content": words[-1]}, {"role": "assistant", "content": f"reply {number}"}]
        return messages, words

    def messages(self, turns: int, user: str | None) -> Row:
        history, _ = self.history(turns)
        moment = START + timedelta(hours=next(self._numbers))
        return {"id": f"m{next(self._numbers)}", "user": user, "model": "m", "created": moment.isoformat(), "messages": history}

    def growing(self, turns: int, user: str) -> list[Row]:
        whole = self.messages(turns, user)
        start = datetime.fromisoformat(whole["created"])
        return [
            whole
            | {
                "id": f"{whole['id']}-{turn}",
                "created": (start + timedelta(minutes=turn)).isoformat(),
                "messages": whole["messages"][: 2 * turn],
            }
            for turn in range(1, turns + 1)
        ]

    def wildchat(self, turns: int, user: str | None) -> Row:
        history, _ = self.history(turns)
        own = {"conversation_hash": f"w{next(self._numbers)}", "conversation": history, "hashed_ip": user, "header": {"user-agent": "x"}}
        return own | {
            "model": "m",
            "timestamp": (START + timedelta(hours=next(self._numbers))).isoformat(),
            "toxic": next(self._numbers) % 5 == 0,
        }

    def lmsys(self, turns: int) -> Row:
        history, _ = self.history(turns)
        flags = [{"flagged": next(self._numbers) % 7 == 0} for _ in history]
        return {"conversation_id": f"l{next(self._numbers)}", "conversation": history, "model": "m", "openai_moderation": flags}


def said(row: Row) -> list[str]:
    return [message["content"] for message in row.get("messages", row.get("conversation", ())) if message["role"] == "user"]


def lines_in(file: Path) -> int:
    """Lines of a file that are not blank, as the shell counts them."""
    command = f"{'zcat' if file.suffix == '.gz' else 'cat'} '{file}' 2>/dev/null | LC_ALL=C grep -ac '[^[:space:]]'"
    return int(subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout)


def as_lines(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    entries = [(json.dumps(row).encode(), said(row)) for row in rows]
    for number, line in enumerate(broken):
        entries.insert((7 * number + 3) % (len(entries) + 1), (line, []))
    file.write_bytes(b"".join(line + b"\n" for line, _ in entries))
    return Written([words for _, words in entries], lines_in(file))


def as_gzip(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    found = as_lines(file, rows, broken)
    lines = file.read_bytes().splitlines(keepends=True)
    file.with_suffix(".jsonl.gz").write_bytes(b"".join(gzip.compress(b"".join(part)) for part in (lines[::2], lines[1::2])) + bytes(64))
    file.unlink()
    return Written([*found.words[::2], *found.words[1::2]], lines_in(file.with_suffix(".jsonl.gz")))


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def as_cut_gzip(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    found = as_lines(file, rows, broken)
    compressed = gzip.compress(file.read_bytes())
    file.unlink()
    file = file.with_suffix(".jsonl.gz")
    file.write_bytes(compressed[: max(12, len(compressed) * 2 // 3)])
    *lines, rest = zlib.decompressobj(wbits=31).decompress(file.read_bytes()).split(b"\n")  # zcat keeps back what it has in hand
    whole = len(lines) + is_json(rest)
    return Written(found.words[:whole], whole + 1)  # the damage is one row


def as_zstd(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    found = as_lines(file, rows, broken)
    file.with_suffix(".ndjson.zst").write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    return found


def as_array(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    file.with_suffix(".json").write_text(json.dumps(rows, indent=len(broken) or None))
    return Written([said(row) for row in rows], len(rows))


def as_parquet(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(file.with_suffix(".parquet"), row_group_size=2)
    return Written([said(row) for row in rows], pq.read_metadata(file.with_suffix(".parquet")).num_rows)


def as_arrow(file: Path, rows: list[Row], broken: list[bytes]) -> Written:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(file.with_suffix(".arrow"), table.schema) as writer:
        writer.write_table(table)
    return Written([said(row) for row in rows], len(table))


FORMATS: list[Callable[[Path, list[Row], list[bytes]], Written]] = [as_lines, as_gzip, as_cut_gzip, as_zstd, as_array, as_parquet, as_arrow]
KINDS = st.sampled_from(["messages", "growing", "wildchat", "lmsys"])
USERS = st.sampled_from(["u1", "u2", None])


@st.composite
def contents(draw: st.DrawFn) -> list[tuple[str, list[tuple[int, str | None]], list[bytes]]]:
    """Files: a kind, the turns and users of conversations, and broken lines."""
    conversation = st.tuples(st.integers(1, 4), USERS)
    file = st.tuples(KINDS, st.lists(conversation, min_size=1, max_size=4), st.lists(st.sampled_from(BROKEN), max_size=3))
    return draw(st.lists(file, min_size=1, max_size=4))


def rows_of(logs: Logs, kind: str, conversations: list[tuple[int, str | None]]) -> list[Row]:
    if kind == "growing":
        return [row for turns, user in conversations for row in logs.growing(turns, user or "u3")]
    if kind == "lmsys":
        return [logs.lmsys(turns) for turns, _ in conversations]
    return [(logs.messages if kind == "messages" else logs.wildchat)(turns, user) for turns, user in conversations]


def run(location: Path) -> Ingested:
    source = SourceSettings(name="s", kind=detect_kind(str(location)), location=str(location), assumed_start=START, assumed_model="m")
    return ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=contents(), formats=st.lists(st.sampled_from(FORMATS), min_size=4, max_size=4))
def test_no_row_and_no_conversation_is_lost(
    files: list[tuple[str, list[tuple[int, str | None]], list[bytes]]],
    formats: list[Callable[[Path, list[Row], list[bytes]], Written]],
    tmp_path: Path,
) -> None:
    folder, logs = tmp_path / "logs", Logs()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = {}
    for number, ((kind, conversations, broken), write) in enumerate(zip(files, formats, strict=False)):
        found = write(folder / f"{number}.jsonl", rows_of(logs, kind, conversations), broken)
        (name,) = (path.name for path in folder.iterdir() if path.name.startswith(f"{number}."))
        written[name] = found
    if not any(words for each in written.values() for words in each.words):
        return  # nothing that a layout could be told from
    found = run(folder)

    outcomes = len(found.conversations) + len(found.quarantine) + len(found.superseded)
    assert sum(found.rows_in.values()) == outcomes == sum(each.rows for each in written.values())
    accepted = found.conversations.select(pl.col("messages").explode().struct.field("content")).to_series().to_list()
    apart = {*found.quarantine["row_id"], *found.superseded["row_id"]}
    for name, each in written.items():
        for number, words in enumerate(each.words):
            for word in words:
                times = accepted.count(word)
                assert times == 1 or (times == 0 and f"{name}#{number}" in apart), word


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    conversations=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["u1", "u2"])), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    files=st.integers(1, 3),
)
def test_of_a_growing_history_the_longest_is_kept_in_whatever_order(
    conversations: list[tuple[int, str]], order: Any, files: int, tmp_path: Path
) -> None:
    folder, logs = tmp_path / "logs", Logs()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = [row for turns, user in conversations for row in logs.growing(turns, user)]
    order.shuffle(rows)
    for number in range(min(files, len(rows))):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[number::files]))
    found = run(folder)
    lengths = sorted(found.conversations["user_turns"])
    assert lengths == sorted(turns for turns, _ in conversations)
    assert len(found.superseded) == len(rows) - len(conversations)
    assert found.conversations["user_id"].n_unique() == len({user for _, user in conversations})
