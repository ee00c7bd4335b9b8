"""JSON lines: every line is a row or a quarantined row, whatever is in it; kinds without Parquet files of their own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import huggingface_hub
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts
from rlhi_dagster.conversations.sources.columns import USUAL
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from rlhi_dagster.conversations.sources.values import _of_line, _stripped

NOW = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
SOUND = {"id": "sound", "model": "m", "messages": TALK}


def settings(location: Path | str, kind: SourceKind = SourceKind.MESSAGES, **changes: object) -> SourceSettings:
    return SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START, **changes)


def scan_rows(source: SourceSettings) -> pl.DataFrame:
    return SourceRows(source, now=NOW).collect(lambda rows: rows).sort("source_file", "row_number")


def run(source: SourceSettings) -> Ingested:
    return ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def lines(*rows: object, name: str = "a.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows) + b"\n")
        return path

    return lines


BROKEN = {
    "no json": (b'{"id": "c1", ', Reason.UNREADABLE_JSON, "EOF"),
    "no utf-8": (b'{"id": "caf\xe9"}', Reason.UNREADABLE_JSON, "line 2: no UTF-8 at byte 11"),
    "no object": ([SOUND], Reason.MISTYPED_FIELD, "the row"),
    "messages are text": (SOUND | {"messages": "a"}, Reason.MISTYPED_FIELD, "messages: "),
    "a message is text": (SOUND | {"messages": [*TALK, "a"]}, Reason.MISTYPED_FIELD, "messages.2: "),
    "a flag is no flag": (SOUND | {"toxic": "perhaps"}, Reason.MISTYPED_FIELD, "toxic: "),
    "a time is no time": (SOUND | {"created": "yesterday"}, Reason.MISTYPED_FIELD, "started_at: "),
    "a time beyond the calendar": (SOUND | {"created": "9999-12-31T23:59:59-10:00"}, Reason.MISTYPED_FIELD, "started_at: "),
    "no model": ({"messages": TALK}, Reason.MISSING_FIELD, "no model"),
    "no messages": ({"id": "c1", "model": "m"}, Reason.MISSING_FIELD, "message list"),
    "neither id nor messages": ({"model": "m"}, Reason.MISSING_FIELD, "conversation id"),
    "null entry": (SOUND | {"messages": [*TALK, None]}, Reason.MISTYPED_FIELD, "messages.2: no message"),
    "narrator": (SOUND | {"messages": [*TALK, {"role": "narrator", "content": "x"}]}, Reason.UNKNOWN_ROLE, "message 2"),
    "null content": (SOUND | {"messages": [{"role": "user"}, TALK[1]]}, Reason.NO_USER_MESSAGE, "in words"),
    "too early": (SOUND | {"created": 0}, Reason.IMPOSSIBLE_TIMESTAMP, "1970"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_rejected_and_its_neighbours_are_not(name: str, write: Callable[..., Path]) -> None:
    broken, reason, detail = BROKEN[name]
    found = run(settings(write(SOUND | {"id": "before"}, broken, SOUND | {"id": "after"})))
    assert found.quarantine.select("row_id", "reason").rows() == [("a.jsonl#1", reason)]
    assert detail in found.quarantine["detail"][0]
    assert found.conversations["conversation_id"].to_list() == ["after", "before"]


def test_quarantine_never_shows_text(write: Callable[..., Path]) -> None:
    tulips = [{"role": "user", "content": ["tulips"]}], {"tulips": 1}, "tulips"
    rows = [SOUND | {name: value} for name in ("messages", "toxic", "created") for value in tulips]
    found = run(settings(write(*rows, b"tulips", b'{"tulips', b'["tulips"]')))
    assert len(found.quarantine) == len(rows) + 3
    assert "tulips" not in found.quarantine.write_csv()


def test_every_kind_has_a_layout() -> None:
    assert set(LAYOUTS) == set(SourceKind)


def test_blank_lines_are_no_rows(write: Callable[..., Path]) -> None:
    path = write(b"\xef\xbb\xbf" + json.dumps(SOUND).encode() + b"\r", b"", b" \t", b"[")
    found = run(settings(path))
    assert found.conversations["conversation_id"].to_list() == ["sound"]
    ((number, detail),) = found.quarantine.select("row_number", "detail").rows()
    assert number == 1
    assert detail.startswith("line 4: ")


def test_lines_are_the_same_plain_and_compressed(write: Callable[..., Path]) -> None:
    plain = write(*({"id": f"c{i}", "model": "m", "messages": TALK} for i in range(2500)))
    half = len(plain.read_bytes()) // 2
    parts = plain.read_bytes()[:half], plain.read_bytes()[half:]
    (plain.parent / "b.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))  # two members, as appended files have
    (plain.parent / "c.jsonl.zst").write_bytes(b"".join(pa.compress(part, "zstd", asbytes=True) for part in parts))
    rows = scan_rows(settings(plain.parent)).drop("source_file").sort("row_number", "conversation_id")
    assert len(rows) == 7500
    assert rows.gather_every(3).equals(rows.gather_every(3, 2))
    assert {detect_kind(str(file)) for file in plain.parent.iterdir()} == {SourceKind.MESSAGES}


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_the_end_of_a_damaged_compressed_file_is_quarantined(name: str, tmp_path: Path) -> None:
    sound = b"".join(json.dumps(SOUND | {"id": f"c{i}"}).encode() + b"\n" for i in range(10_000))
    content = gzip.compress(sound) if name.endswith("gz") else pa.compress(sound, "zstd", asbytes=True)
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    found = run(settings(tmp_path))
    rows = len(found.conversations)
    assert rows > 1000
    assert found.quarantine.select("row_number", "reason").rows() == [(rows, Reason.UNREADABLE_JSON)]


def test_lines_are_read_from_the_hub(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    local = write(SOUND)

    class Hub:
        def glob(self, path: str) -> list[str]:
            return [path.replace("**/*", "data/a.jsonl")]

        def open(self, path: str, mode: str) -> IO[bytes]:
            assert (path, mode) == ("hf://datasets/o/d/data/a.jsonl", "rb")
            return local.open("rb")

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    source = settings("hf://datasets/o/d", detect_kind("hf://datasets/o/d"))
    assert scan_rows(source).select("source_file", "conversation_id").rows() == [("data/a.jsonl", "sound")]


def test_fields_times_and_roles_of_messages(write: Callable[..., Path]) -> None:
    rows = [
        {"id": 7, "user": 1, "created": 1_686_000_000, "model": "m", "messages": TALK, "n": 1},
        {"id": "b", "created": "2023-06-05T23:20:00+02:00", "model": None, "messages": [{"role": "developer", "content": "s"}, *TALK]},
        {"id": "c", "created": "2023-06-05T21:20:00", "language": "English", "toxic": False, "messages": [TALK[0] | {"timestamp": 9.5e8}]},
    ]
    found = scan_rows(settings(write(*rows), assumed_model="assumed"))
    assert found.select("conversation_id", "user_key", "assistant", "language", "is_toxic").rows() == [
        ("7", "1", "m", None, None),
        ("b", None, "assumed", None, None),
        ("c", None, "assumed", "English", False),
    ]
    assert found["started_at"].to_list() == [datetime(2023, 6, 5, 21, 20, tzinfo=UTC)] * 3
    assert [m["role"] for m in found["messages"][1]] == ["system", "user", "assistant"]
    assert found["messages"][2][0]["sent_at"].year == 2000


def test_content_in_text_parts_is_one_text(write: Callable[..., Path]) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    (found,) = run(settings(write(SOUND | {"messages": [{"role": "user", "content": parts}, TALK[1]]}))).conversations["messages"]
    assert [message["content"] for message in found] == ["a\nb", "b"]


def test_columns_can_be_named_differently(write: Callable[..., Path]) -> None:
    row = {"key": "k", "who": "w", "at": "2023-07-01", "by": "m", "lang": "Dutch", "bad": False, "chat": TALK}
    fields = dict(zip(("conversation_id", "user", "started_at", "model", "language", "toxic", "messages"), row, strict=True))
    found = run(settings(write(row), fields=fields)).conversations.row(0, named=True)
    assert [found[name] for name in ("conversation_id", "month", "assistant", "language", "is_toxic")] == [
        "k",
        "2023-07",
        "m",
        "Dutch",
        False,
    ]


def test_a_conversation_without_id_is_told_by_what_it_says(write: Callable[..., Path]) -> None:
    row = {"model": "m", "messages": TALK}
    first, again, other_user, other_time = row, {"n": 1, **row}, row | {"user": "u"}, row | {"created": "2023-07-01"}
    found = run(settings(write(first, again, other_user, other_time)))
    assert found.quarantine.select("row_number", "reason").rows() == [(1, Reason.DUPLICATE_CONVERSATION)]
    assert found.conversations["conversation_id"].n_unique() == 3
    assert "eaffb52cd3b32671881f434481483694" in found.conversations["conversation_id"]  # a changed digest would change all ids downstream


def test_sharegpt(write: Callable[..., Path]) -> None:
    source = write({"id": "a", "conversations": [{"from": "system", "value": "s"}, *SHAREGPT]}, {"conversations": SHAREGPT[1:]})
    kind = detect_kind(str(source))
    assert kind is SourceKind.MESSAGES
    found = run(settings(source, kind, assumed_model="m"))
    assert [(m["role"], m["content"]) for m in found.conversations["messages"][0]] == [("user", "a"), ("assistant", "b")]
    assert found.quarantine["reason"].to_list() == [Reason.NO_USER_MESSAGE]


@pytest.mark.parametrize("as_parquet", [False, True])
def test_lmsys_is_toxic_if_any_message_is_flagged(as_parquet: bool, write: Callable[..., Path]) -> None:
    rows = [
        {
            "conversation_id": f"c{i}",
            "model": "vicuna",
            "conversation": TALK,
            "turn": 1,
            "language": "English",
            "openai_moderation": [{"categories": {"hate": flag}, "flagged": flag} for flag in flags],
            "redacted": False,
        }
        for i, flags in enumerate([(False, True), (False, False)])
    ]
    source = write(*rows)
    if as_parquet:
        source = source.with_suffix(".parquet")
        pl.DataFrame(rows).write_parquet(source)
    assert detect_kind(str(source)) is SourceKind.LMSYS
    found = run(settings(source, SourceKind.LMSYS))
    assert found.conversations.select("conversation_id", "is_toxic").rows() == [("c1", False)]
    assert found.quarantine["reason"].to_list() == [Reason.TOXIC]


def test_wildchat_lines_are_as_wildchat_parquet(write: Callable[..., Path]) -> None:
    row = {
        "conversation_hash": "c",
        "model": "m",
        "timestamp": "2023-07-01T10:00:00+00:00",
        "conversation": TALK,
        "toxic": False,
        "language": "English",
        "hashed_ip": "ip",
        "header": {"accept-language": "en", "user-agent": "browser"},
    }
    source = write(row)
    assert detect_kind(str(source)) is SourceKind.WILDCHAT
    pl.DataFrame([row | {"timestamp": datetime(2023, 7, 1, 10, tzinfo=UTC)}]).write_parquet(source.parent / "b.parquet")
    first, second = scan_rows(settings(source.parent, SourceKind.WILDCHAT)).drop("source_file").rows()
    assert first == second


def test_a_file_without_any_object_has_no_kind(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"a\.jsonl cannot be read: line 2: "):
        detect_kind(str(write(b"3", b"no json")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAME = st.sampled_from([name for names in USUAL.values() for name in names] + ["header", "openai_moderation", "metadata"])
MESSAGE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("role", "content", "from", "value", "timestamp"), JSON) | {"role": st.sampled_from(["user", "assistant"])},
)
ROW = st.dictionaries(NAME, JSON | st.lists(MESSAGE | JSON, max_size=4)) | st.fixed_dictionaries(
    {
        "model": st.text(),
        "messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})),
    }
)
LINES = st.lists(
    (JSON | ROW).map(lambda value: json.dumps(value).encode()) | st.binary().map(lambda line: line.replace(b"\n", b"")), max_size=8
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES,
    kind=st.sampled_from(SourceKind),
    model=st.sampled_from(["m", None]),
)
def test_no_line_is_ever_lost(lines: list[bytes], kind: SourceKind, model: str | None, tmp_path: Path) -> None:
    sound = json.dumps(SOUND).encode()  # a first line by which the file is told to be JSON lines
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([sound, *(line.replace(b"\r", b"") for line in lines)]))
    found = run(settings(tmp_path, kind, assumed_model=model))
    rows = 1 + sum(len(list(_of_line(stripped, 1))) for line in lines if (stripped := _stripped(line.replace(b"\r", b""))))
    assert sum(found.rows_in.values()) == len(found.conversations) + len(found.quarantine) + len(found.superseded) == rows
