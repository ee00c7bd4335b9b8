"""Compressed files: every line that a decompressor can deliver is a row, and damage is one more that says where."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhi_dagster.conversations.sources import decompression, values
from rlhi_dagster.conversations.sources.decompression import DamagedError
from rlhi_dagster.conversations.sources.records import Broken

SKIPPED = b"\x53\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
LINES = [json.dumps({"id": f"c{i}", "messages": [{"role": "user", "content": "words " * (i % 9)}]}).encode() + b"\n" for i in range(60)]
TEXT = b"".join(LINES)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESSORS = {"gzip": gz, "zstd": zst}


def delivered(compressed: bytes) -> tuple[bytes, str | None]:
    """All that is read of a file, and what is said of its damage."""
    found = bytearray()
    try:
        for chunk in decompression.chunks(io.BytesIO(compressed)):
            found += chunk
    except DamagedError as error:
        return bytes(found), str(error)
    return bytes(found), None


def in_one_go(compressed: bytes) -> bytes:
    """What zlib and zstd deliver of the first member, byte by byte, as far as they can."""
    member = zlib.decompressobj(wbits=31) if compressed.startswith(b"\x1f\x8b") else zstandard.ZstdDecompressor().decompressobj()
    found = bytearray()
    for byte in compressed:
        try:
            found += member.decompress(bytes([byte]))
        except (zlib.error, zstandard.ZstdError):
            break
    return bytes(found)


SOUND: dict[str, Callable[[Callable[[bytes], bytes]], bytes]] = {
    "one member": lambda compress: compress(TEXT),
    "a member a line": lambda compress: b"".join(map(compress, LINES)),
    "members that end within lines": lambda compress: b"".join(compress(TEXT[i : i + 13]) for i in range(0, len(TEXT), 13)),
    "empty members": lambda compress: compress(b"") + compress(TEXT) + compress(b"") * 3,
    "zeros behind": lambda compress: compress(TEXT) + bytes(1024),
    "zeros between": lambda compress: compress(TEXT[:100]) + bytes(512) + compress(TEXT[100:]) + bytes(1),
    "many zeros between": lambda compress: compress(TEXT[:100]) + bytes(200_000) + compress(TEXT[100:]),
    "other bytes behind": lambda compress: compress(TEXT) + b"what a broken copy left",
    "one byte behind": lambda compress: compress(TEXT) + b"\x1f",
    "half a line more": lambda compress: compress(TEXT) + b"\n",
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("codec", COMPRESSORS)
def test_padding_and_many_members_are_no_damage(codec: str, name: str) -> None:
    assert delivered(SOUND[name](COMPRESSORS[codec])) == (TEXT, None)


def test_frames_to_be_skipped_may_stand_anywhere() -> None:
    assert delivered(SKIPPED + zst(TEXT[:100]) + SKIPPED + SKIPPED + zst(TEXT[100:]) + SKIPPED) == (TEXT, None)
    assert delivered(SKIPPED) == (b"", None)


def test_frames_with_large_windows_are_read() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert delivered(writer.compress(TEXT) + writer.flush()) == (TEXT, None)


def test_a_hundred_thousand_members_take_no_longer_than_their_bytes() -> None:
    assert delivered(gz(b"{}\n") * 100_000) == (b"{}\n" * 100_000, None)


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_a_file_that_is_cut_anywhere_gives_all_that_is_there(codec: str) -> None:
    compressed = COMPRESSORS[codec](TEXT)
    for end in range(5, len(compressed), 7):
        found, damage = delivered(compressed[:end])
        assert found == in_one_go(compressed[:end])
        assert damage == f"the compressed file is cut off at byte {end:,}"


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_a_file_that_is_cut_in_a_later_member_gives_all_before(codec: str) -> None:
    first, second = COMPRESSORS[codec](TEXT), COMPRESSORS[codec](b"more\n" * 500)
    for end in range(6, len(second), 9):
        found, damage = delivered(first + bytes(3) + second[:end])
        assert found == TEXT + in_one_go(second[:end])
        assert damage is not None


@hypothesis_settings(max_examples=150, deadline=None)
@given(data=st.data(), codec=st.sampled_from(sorted(COMPRESSORS)))
def test_a_flipped_bit_costs_what_lies_behind_it_and_is_told(data: st.DataObject, codec: str) -> None:
    first, compressed = COMPRESSORS[codec](b"first\n" * 20), COMPRESSORS[codec](TEXT)
    place = data.draw(st.integers(4, len(compressed) - 1))
    flipped = bytearray(compressed)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    found, damage = delivered(first + bytes(flipped) + COMPRESSORS[codec](b"last"))
    assert found.startswith(b"first\n" * 20 + in_one_go(bytes(flipped)))
    # A flipped bit of a header may say nothing, or make a member that the last one completes; else the checksum tells.
    assert damage is not None or found in (b"first\n" * 20 + TEXT + b"last", b"first\n" * 20 + TEXT)


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_a_wrong_checksum_takes_no_line(codec: str) -> None:
    compressed = bytearray(COMPRESSORS[codec](TEXT))
    compressed[-8 if codec == "gzip" else -1] ^= 1
    found, damage = delivered(bytes(compressed))
    assert found == TEXT
    assert re.match(r"the compressed file is damaged at byte [\d,]+ \(", damage or "")


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_damage_far_into_a_large_member_says_where(codec: str) -> None:
    lines = b"".join(json.dumps({"id": i, "digest": zlib.crc32(str(i).encode())}).encode() + b"\n" for i in range(60_000))
    compressed = bytearray(COMPRESSORS[codec](lines))
    place = 2 * len(compressed) // 3
    compressed[place : place + 64] = b"\xff" * 64
    found, damage = delivered(bytes(compressed))
    assert found.startswith(in_one_go(bytes(compressed)))
    (said,) = re.findall(r"at byte ([\d,]+)", damage or "")
    assert place <= int(said.replace(",", "")) <= place + (1 << 18)
    assert lines.startswith(found[: len(found) // 2])


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.lists(st.sampled_from(LINES), max_size=5).map(b"".join), min_size=1, max_size=6),
    padding=st.lists(st.sampled_from([b"", bytes(1), bytes(513)]), min_size=6, max_size=6),
    cut=st.integers(0, 40),
    codec=st.sampled_from(sorted(COMPRESSORS)),
)
def test_rows_are_the_lines_that_are_delivered_and_at_most_one_more(
    members: list[bytes], padding: list[bytes], cut: int, codec: str, tmp_path: Path
) -> None:
    compressed = b"".join(COMPRESSORS[codec](member) + zeros for member, zeros in zip(members, padding, strict=False))
    compressed = compressed[: max(len(compressed) - cut, 8)]
    (tmp_path / "a.jsonl.gz").write_bytes(compressed)
    text, damage = delivered(compressed)
    found = list(values.read(str(tmp_path / "a.jsonl.gz")))
    *whole, rest = text.split(b"\n")
    is_whole_too = rest + b"\n" in LINES  # the cut took no more of the line than its end
    told = [value for value in found if isinstance(value, Broken)]
    lines = [*whole, rest] if is_whole_too else whole
    assert [value for value in found if not isinstance(value, Broken)] == [json.loads(line) for line in lines]
    assert [value.detail for value in told] == ([] if damage is None else [damage])
    assert damage is not None or not rest


@pytest.mark.parametrize("codec", COMPRESSORS)
@pytest.mark.parametrize("cut", [0, 1, 9, 60, 200])
def test_an_array_in_a_damaged_file_is_read_as_far_as_it_goes(cut: int, codec: str, tmp_path: Path) -> None:
    array = json.dumps([json.loads(line) for line in LINES]).encode()
    compressed = COMPRESSORS[codec](array)
    (tmp_path / "a.json").write_bytes(compressed[: len(compressed) - cut])
    found = list(values.read(str(tmp_path / "a.json")))
    there = in_one_go(compressed[: len(compressed) - cut]).decode()
    complete = sum(json.dumps(json.loads(line)) in there for line in LINES)
    assert [value for value in found if not isinstance(value, Broken)] == [json.loads(line) for line in LINES[:complete]]
    assert [value.detail[:23] for value in found if isinstance(value, Broken)] == (["the compressed file is "] if cut else [])
