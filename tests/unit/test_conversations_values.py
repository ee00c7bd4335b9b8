"""JSON in whatever shape, encoding and state: a value a row, and a broken one where there is none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhi_dagster.conversations import Reason, Repair
from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, detect_kind, month_counts, values
from rlhi_dagster.conversations.sources.records import Broken

Row = dict[str, Any]


def row(number: int) -> Row:
    talk = [{"role": "user", "content": f"a {number} é 中"}, {"role": "assistant", "content": "b"}]
    return {"id": f"i{number}", "user": "u", "model": "m", "messages": talk}


ROWS = [row(number) for number in range(5)]
NAMES = [each["id"] for each in ROWS]
LINES = "".join(json.dumps(each) + "\n" for each in ROWS)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], list[Any]]:
    """Values of a file: ids of rows, details of broken ones."""

    def values_of(content: str | bytes) -> list[Any]:
        (tmp_path / "a.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
        found = list(values.read(str(tmp_path / "a.jsonl")))
        return [value.get("id") if isinstance(value, dict) else value for value in found]

    return values_of


def told(found: list[Any]) -> list[str]:
    return [value.detail for value in found if isinstance(value, Broken)]


def kept(found: list[Any]) -> list[Any]:
    return [value for value in found if not isinstance(value, Broken)]


SHAPES: dict[str, str] = {
    "lines": LINES,
    "lines with blank ones": "\n \n" + LINES.replace("\n", "\n\t\n"),
    "an array on one line": json.dumps(ROWS),
    "an array of lines": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "commas in front": "[" + "\n,".join(map(json.dumps, ROWS)) + "]",
    "a comma at the end": json.dumps(ROWS)[:-1] + ",]",
    **{f"a pretty array, indent {indent!r}": json.dumps(ROWS, indent=indent) for indent in (0, 1, 2, 4, 8, "\t")},
    **{f"pretty objects, indent {indent!r}": "\n".join(json.dumps(each, indent=indent) for each in ROWS) for indent in (0, 1, 2, 4, "\t")},
    "pretty with compact messages": "\n".join(
        f'{{\n  "id": "{name}",\n  "messages": [\n    {{"role": "user"}},\n    {{"role": "assistant", "content": "b"}}\n  ]\n}}'
        for name in NAMES
    ),
    "glued": LINES.replace("\n", ""),
    "glued pretty": "".join(json.dumps(each, indent=2) for each in ROWS),
    "arrays one after the other": json.dumps(ROWS[:2]) + "\n" + json.dumps(ROWS[2:]) + "\n",
    "glued arrays": json.dumps(ROWS[:2]) + json.dumps(ROWS[2:]),
    "an array and objects": json.dumps(ROWS[:2], indent=1) + "\n" + "".join(json.dumps(each, indent=1) for each in ROWS[2:]),
    "record separators": "".join(f"\x1e{json.dumps(each)}\n" for each in ROWS),
    "record separators, pretty": "".join(f"\x1e{json.dumps(each, indent=2)}\n" for each in ROWS),
    "zeros between": LINES.replace("\n", "\n\0\0\0\0"),
    "zeros around": "\0" * 600 + LINES + "\0" * 600,
    "marks at every line": "".join(f"\ufeff{line}\n" for line in LINES.splitlines()),
    "marks in an array": json.dumps(ROWS).replace('{"id"', '\ufeff{"id"'),
    "no new line at the end": LINES.rstrip("\n"),
    "line separators in text": LINES.replace("b", "\u2028b\u2029\x85"),
}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_any_shape_is_read(shape: str, ends: str, read: Callable[[str | bytes], list[Any]]) -> None:
    assert read(SHAPES[shape].replace("\n", ends)) == NAMES


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("shape", ["lines", "an array on one line", "a pretty array, indent 2", "glued", "marks at every line"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_file_in_any_unicode_encoding_is_read(
    encoding: str, shape: str, is_ascii: bool, read: Callable[[str | bytes], list[Any]]
) -> None:
    content = SHAPES[shape] if is_ascii else SHAPES[shape].replace(r"\u00e9", "é").replace(r"\u4e2d", "中")
    assert read(content.encode(encoding)) == NAMES


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\xff\xfe"])
def test_big_and_little_end_are_told_by_the_mark(mark: bytes, read: Callable[[str | bytes], list[Any]]) -> None:
    assert read(mark + LINES.encode("utf-16-be" if mark == b"\xfe\xff" else "utf-16-le")) == NAMES


def test_characters_beyond_ascii_survive_chunks(tmp_path: Path) -> None:
    texts = ["é中\U0001f600" * 30_000, "x" + "\U0001f600" * 50_000]
    for encoding in ("utf-8", "utf-16", "utf-32-be"):
        for layout in (
            lambda rows: "\n".join(json.dumps(each, ensure_ascii=False) for each in rows),
            lambda rows: json.dumps(rows, ensure_ascii=False),
        ):
            (tmp_path / "a.jsonl").write_bytes(layout([{"text": text} for text in texts]).encode(encoding))
            assert [value["text"] for value in values.read(str(tmp_path / "a.jsonl"))] == texts


ARRAYS = [name for name in SHAPES if "array" in name and "mark" not in name]
DOCUMENTS = [*ARRAYS, "glued", "glued pretty", *(name for name in SHAPES if name.startswith("pretty objects"))]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("shape", DOCUMENTS)
def test_a_broken_value_costs_no_other(shape: str, number: int, read: Callable[[str | bytes], list[Any]]) -> None:
    broken = SHAPES[shape].replace(f'"i{number}"', f'nonsense "i{number}"')
    found = read(broken)
    assert kept(found) == [name for name in NAMES if name != f"i{number}"]
    # The end of an array that lies in what is broken is not seen.
    assert 1 <= len(told(found)) <= 1 + (shape == "an array and objects")


@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("shape", [name for name in ARRAYS if name != "an array and objects"])
def test_a_value_without_its_end_costs_no_other(shape: str, number: int, read: Callable[[str | bytes], list[Any]]) -> None:
    content = SHAPES[shape]
    start, end = content.index(f'"i{number}"') + 30, content.index(f'"i{number + 1}"')
    found = read(content[:start] + content[content.rindex("{", 0, end) - (shape == "an array of lines") :])
    assert kept(found) == [name for name in NAMES if name != f"i{number}"]
    assert 1 <= len(told(found)) <= 2  # an array that this leaves open is told, too


@pytest.mark.parametrize("shape", [name for name in ARRAYS if name != "an array and objects"])
def test_an_array_that_is_cut_off_is_read_and_told(shape: str, read: Callable[[str | bytes], list[Any]]) -> None:
    content = SHAPES[shape]
    within, before = content.index('"i4"') + 20, content.rindex("{", 0, content.index('"i4"'))
    for end in (within, before, before + 1):
        found = read(content[:end])
        assert (kept(found), len(told(found))) == (NAMES[:4], 1)


def test_the_message_says_where(read: Callable[[str | bytes], list[Any]]) -> None:
    broken = json.dumps(ROWS, indent=1).replace('"i3"', '"i3')
    (line,) = [number for number, text in enumerate(broken.splitlines(), 1) if '"i3' in text]
    assert told(read(broken)) == [f"no JSON from line {line - 1} on"]
    assert told(read(LINES + '{"id": nonsense}\n')) == ["line 6: expected ident at column 9"]
    assert told(read(json.dumps(ROWS)[:-1])) == ["the array is not closed: the file may have been cut off"]


FIRST_LINES: dict[str, tuple[str, list[Any]]] = {
    "a comment": ("# exported on Tuesday", []),
    "a word": ("nonsense", []),
    "a line of a log": ("[2023-11-14 22:13] started", []),
    "a cut line": (json.dumps(ROWS[0])[:40], []),
    "a number": ("3", [3]),
    "null": ("null", [None]),
    "a list": ('["id", "messages"]', [["id", "messages"]]),
    "a header": ('{"version": 1}', [None]),
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_another_first_line_costs_no_other(name: str, read: Callable[[str | bytes], list[Any]]) -> None:
    line, value = FIRST_LINES[name]
    found = read(f"{line}\n{LINES}")
    assert kept(found) == [*value, *NAMES]
    assert len(told(found)) == (0 if value else 1)


@pytest.mark.parametrize("name", ["a comment", "a word"])
@pytest.mark.parametrize("shape", ["a pretty array, indent 2", "pretty objects, indent 2", "an array on one line"])
def test_another_first_line_before_a_document(name: str, shape: str, read: Callable[[str | bytes], list[Any]]) -> None:
    found = read(f"{FIRST_LINES[name][0]}\n{SHAPES[shape]}")
    assert (kept(found), len(told(found))) == (NAMES, 1)


@pytest.mark.parametrize("start", [b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff", b"\xff"])
def test_a_first_line_that_begins_like_a_mark_is_no_mark(start: bytes, read: Callable[[str | bytes], list[Any]]) -> None:
    found = read(start + b"\n" + LINES.encode())
    assert (kept(found), told(found)) == (NAMES, ["line 1: no UTF-8 at byte 0"])


def test_lists_line_by_line_are_their_entries(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each["messages"]) + "\n" for each in ROWS))
    assert len(list(values.read(str(tmp_path / "a.jsonl")))) == 10
    with pytest.raises(ValueError, match=r"a\.jsonl has objects with content, role\. Looked for"):
        detect_kind(str(tmp_path))


ODD_VALUES: dict[str, tuple[str, Any]] = {
    "half a character": (r'{"id": "a\ud83d", "n": "\udc00"}', "a"),
    "a character in two halves": (r'{"id": "\ud83d\ude00"}', "\U0001f600"),
    "five thousand digits": ('{"id": ' + "9" * 5000 + "}", "9" * 5000),
    "a large number": ('{"id": 123456789012345678901234567890}', 123456789012345678901234567890),
    "raw control characters": ('{"id": "a\tb\x01"}', "a\tb\x01"),
    "a key twice": ('{"id": "a", "id": "b"}', "b"),
    "escapes": (r'{"id": "\u0000\n\/\""}', '\x00\n/"'),
}


@pytest.mark.parametrize("name", ODD_VALUES)
@pytest.mark.parametrize("around", ["{}\n", "[{}]", "[\n {}\n]"])
def test_odd_values_are_values(name: str, around: str, read: Callable[[str | bytes], list[Any]]) -> None:
    written, value = ODD_VALUES[name]
    if around == "{}\n":
        assert read(LINES + written + "\n" + LINES) == [*NAMES, value, *NAMES]
    else:
        assert read(around.replace("{}", f"{json.dumps(ROWS[0])}, {written}, {json.dumps(ROWS[1])}")) == ["i0", value, "i1"]


@pytest.mark.parametrize("depth", [150, 250, 900, 1100, 100_000])
def test_deep_nesting_costs_no_other(depth: int, read: Callable[[str | bytes], list[Any]]) -> None:
    deep = '{"id": "deep", "more": ' + "[" * depth + "]" * depth + "}"
    for content in (LINES + deep + "\n" + LINES, json.dumps(ROWS)[:-1] + f", {deep}, " + json.dumps(ROWS)[1:]):
        found = read(content)
        assert [name for name in kept(found) if name != "deep"] == NAMES * 2
        assert len(found) == 11


FOREIGN = {
    "it is a Parquet file": b"PAR1" + bytes(100),
    "it is an Arrow file": b"ARROW1\x00\x00" + bytes(100),
    "it is compressed with bzip2": b"BZh91AY&SY" + bytes(100),
    "it is compressed with xz": b"\xfd7zXZ\x00" + bytes(100),
    "it is compressed with lz4": b"\x04\x22\x4d\x18" + bytes(100),
    "it is a ZIP archive": b"PK\x03\x04" + bytes(100),
    "it is a database of SQLite": b"SQLite format 3\x00" + bytes(100),
    "it is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("said", FOREIGN)
def test_a_mislabelled_file_is_told_for_what_it_is(said: str, read: Callable[[str | bytes], list[Any]], tmp_path: Path) -> None:
    (detail,) = told(read(FOREIGN[said]))
    assert detail.startswith(said)
    with pytest.raises(ValueError, match=rf"a\.jsonl cannot be read: {said}"):
        detect_kind(str(tmp_path))


@pytest.mark.parametrize("content", ["", "\n\n", " \t", "[]", "[\n]", "\ufeff", "\0\0\0\0\0\0\0\0\0", "[][]"])
def test_nothing_is_no_row(content: str, read: Callable[[str | bytes], list[Any]]) -> None:
    assert read(content) == []


def test_a_page_of_an_api_is_its_rows(tmp_path: Path) -> None:
    for page in ({"data": ROWS}, {"data": ROWS, "meta": {"page": 1}}, {"object": "list", "data": ROWS, "has_more": False}):
        (tmp_path / "a.json").write_text(json.dumps(page, indent=2))
        assert conversations(tmp_path / "a.json") == (NAMES, {})


def conversations(location: Path, **changes: object) -> tuple[list[str], dict[str, int]]:
    source = SourceSettings(
        name="s", kind=SourceKind.MESSAGES, location=str(location), assumed_start=datetime(2023, 6, 1, tzinfo=UTC), **changes
    )
    found = ingest(source, list(month_counts(source)), "salt")
    return found.conversations["conversation_id"].to_list(), dict(found.quarantine.group_by("reason").len().iter_rows())


def test_large_conversations_are_read_and_judged(tmp_path: Path) -> None:
    turns = [message for _ in range(5_000) for message in ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})]
    long = [{"role": "user", "content": "a" * 5_000_000}, {"role": "assistant", "content": "b"}]
    rules = [{"role": "system", "content": "s" * 5_000_000}, *ROWS[1]["messages"]]
    rows = [ROWS[0], ROWS[2] | {"messages": turns}, ROWS[3] | {"messages": long}, ROWS[1] | {"messages": rules}]
    for content in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        (tmp_path / "a.jsonl").write_text(content)
        assert conversations(tmp_path) == (["i0", "i1"], {Reason.CONVERSATION_TOO_LONG: 1, Reason.MESSAGE_TOO_LONG: 1})


def test_an_array_of_many_chunks_with_broken_values(tmp_path: Path) -> None:
    random.seed(7)
    rows = [
        {
            "id": f"c{i}",
            "model": "m",
            "messages": [{"role": "user", "content": "x" * random.randint(0, 9_000)}, {"role": "assistant", "content": "}],[{"}],
        }
        for i in range(400)
    ]
    for indent in (None, 1):
        content = json.dumps(rows, indent=indent)
        broken = {f"c{i}" for i in (1, 2, 77, 200, 398)}
        for name in broken:
            content = content.replace(f'"{name}"', f'"{name}')
        (tmp_path / "a.json").write_text(content)
        found = list(values.read(str(tmp_path / "a.json")))
        assert [value["id"] for value in found if isinstance(value, dict)] == [each["id"] for each in rows if each["id"] not in broken]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=5), min_size=1, max_size=6)
LAYOUTS: list[Callable[[list[Row], bool], str]] = [
    lambda rows, ascii_only: "\n".join(json.dumps(each, ensure_ascii=ascii_only) for each in rows),
    lambda rows, ascii_only: json.dumps(rows, ensure_ascii=ascii_only),
    lambda rows, ascii_only: json.dumps(rows, ensure_ascii=ascii_only, indent=1),
    lambda rows, ascii_only: "\n".join(json.dumps(each, ensure_ascii=ascii_only, indent=2) for each in rows),
    lambda rows, ascii_only: "".join(json.dumps(each, ensure_ascii=ascii_only) for each in rows),
]


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=OBJECTS,
    layout=st.sampled_from(LAYOUTS),
    is_ascii=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"]),
)
def test_what_is_written_is_read(
    rows: list[Row], layout: Callable[[list[Row], bool], str], is_ascii: bool, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_bytes(layout(rows, is_ascii).encode(encoding))
    assert list(values.read(str(tmp_path / "a.json"))) == rows


def test_a_bad_time_of_a_message_is_no_start(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "a", "timestamp": "12:01"},
        {"role": "assistant", "content": "b", "timestamp": "2023-11-14T22:13:20Z"},
    ]
    rows = [
        {"id": "a", "model": "m", "messages": talk},
        {"id": "b", "model": "m", "messages": [talk[0], {"role": "assistant", "content": "b"}]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = SourceSettings(name="s", kind=SourceKind.MESSAGES, location=str(tmp_path), assumed_start=datetime(2023, 6, 1, tzinfo=UTC))
    found = ingest(source, list(month_counts(source)), "salt").conversations.sort("conversation_id")
    assert found["started_at"].to_list() == [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), datetime(2023, 6, 1, tzinfo=UTC)]
    assert found["repairs"].to_list() == [[Repair.CLEARED_TIME]] * 2
