"""Compressed files that become far more than any log, and rows that never end: a sentence each, and little memory."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from rlhi_dagster.conversations.sources import decompression, values
from rlhi_dagster.conversations.sources.records import Broken

MIB = 1 << 20


def frames(piece: bytes, count: int) -> bytes:
    """A zstd file of so many times the same piece, without compressing it so often."""
    return zstandard.compress(piece, 3) * count


def read(data: bytes) -> tuple[list[Any], int]:
    """The values of a file, and the most bytes that Python held for it at once."""
    tracemalloc.start()
    try:
        found = list(values.of(io.BytesIO(data)))
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_file_that_becomes_ten_gigabytes_is_told_early() -> None:
    bomb = frames(b" " * (64 * MIB) + b"\n", 160)
    assert len(bomb) < MIB
    found, most = read(bomb)
    assert isinstance(found[-1], Broken)
    assert "more than 500 times its size: no log does" in found[-1].detail
    assert most < 400 * MIB


def test_one_line_of_three_gigabytes_is_one_broken_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "_MOST", 1 << 40)  # so that the line alone is in question
    row = json.dumps({"a": 1}).encode() + b"\n"
    line = zstandard.compress(row) + zstandard.compress(b'{"x": "') + frames(b"a" * (64 * MIB), 48) + zstandard.compress(b'"}\n' + row)
    assert len(line) < 400_000
    found, most = read(line)
    assert [each for each in found if not isinstance(each, Broken)] == [{"a": 1}, {"a": 1}], "its neighbours are read"
    (broken,) = (each for each in found if isinstance(each, Broken))
    assert broken.detail == "line 2: longer than 256 MiB, which no row of a log is"
    assert most < 1200 * MIB


def test_the_bounds_hold_for_every_way_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(values, "_LONGEST", MIB)
    monkeypatch.setattr(decompression, "_MOST", 8 * MIB)
    endless = {
        "a line": b'{"x": "' + b"a" * (2 * MIB),
        "a line of carriage returns": b'{"x": "' + (b"a" * 4095 + b"\r") * 2 * 256,
        "a string of an array": b'[\n{"x": "' + b"a" * (2 * MIB),
        "nothing but brackets": b"[" * (2 * MIB),
        "an object over lines": b'{\n"x": "' + b"a" * (2 * MIB),
        "wide characters": '{"x": "'.encode("utf-16") + ("a" * 2 * MIB).encode("utf-16-le"),
    }
    for name, data in endless.items():
        for packed in (data, gzip.compress(data), zstandard.compress(data)):
            found, most = read(packed)
            assert found, name
            assert all(isinstance(each, Broken) for each in found), name
            assert most < 200 * MIB, name
    monkeypatch.setattr(decompression, "_MOST", MIB)
    for packed in (gzip.compress(b"\n" * (2 * MIB)), zstandard.compress(b"\n" * (2 * MIB))):
        (last,), most = read(packed)
        assert "no log does; if it is right, give it decompressed" in last.detail
        assert most < 100 * MIB, "of as many lines as bytes, few are there at once"


def test_what_repeats_itself_as_logs_do_is_read_whole() -> None:
    talk = [{"role": "system", "content": "You help in a garden. " * 200}, {"role": "user", "content": "How is mint grown?"}]
    rows = b"".join(json.dumps({"id": number, "messages": talk}).encode() + b"\n" for number in range(3000))
    for packed in (gzip.compress(rows), zstandard.compress(rows)):
        assert len(read(packed)[0]) == 3000
