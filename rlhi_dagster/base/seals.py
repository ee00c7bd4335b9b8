"""Seals: the checksum that a Parquet file carries of itself, by which damage is noticed before what it says is used.

An example first. The footer of a sealed file holds ``rlhi_seal = 3f9c…``, the SHA-256 of all its bytes with zeros where these digits are. A
bit that flips on the disk, a file that was cut off, and a piece of another file in its middle give another sum. Checksums of pages, which
Parquet has itself, leave out the headers of pages and the footer, and Polars does not compare them.

What belongs here: sealing and looking, once in a process for each file that is there. What does not: which files are sealed
(``base/lake.py``, ``store/segments.py``). Files of earlier versions carry no seal; those are read once from end to end.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rlhi_dagster.base.owned import Partial

_NAME = "rlhi_seal"
_DIGITS = 64
UNSEALED = {_NAME: "0" * _DIGITS}
"""Metadata that a file is written with in order to be sealed."""
_BEFORE_DIGITS = _NAME.encode() + bytes([0x18, _DIGITS])
"""How a footer says it (Thrift's compact protocol): the name, then the sign of a string and its length."""
_MAGIC = b"PAR1"
_END = 8
"""Bytes behind a footer: its length, then ``_MAGIC``."""
_PIECE = 1 << 20
_THREADS = 4
_sound: dict[Path, tuple[tuple[int, int, int], str | None]] = {}
"""Files that were looked at: what told their state then (inode, size, time of change), and their seal."""


class BrokenFileError(ValueError):
    """A Parquet file is not what was written; the message says how one can tell.

    Attributes:
        file: Which one, where several were looked at.
    """

    file: Path


def seal(stream: BinaryIO) -> str:
    """Seal a file that was written with ``UNSEALED`` among its metadata.

    Args:
        stream: The file, to be read and written at any place.

    Returns:
        The seal: 64 hexadecimal digits.
    """
    place = _place(stream)
    assert place is not None, "the file was not written to be sealed"
    found = _digest(stream, place)
    stream.seek(place)
    stream.write(found.encode())
    stream.flush()
    return found


def write(file: Path, frame: pl.DataFrame) -> None:
    """Write rows as a sealed file, which appears under its name at once or not at all."""
    written(file, frame).close()


def written(file: Path, frame: pl.DataFrame) -> Partial:
    """``write``, and own the file until what this returns is closed."""
    partial = Partial(file)
    try:
        with partial.path.open("r+b") as stream:
            frame.write_parquet(stream, compression="zstd", metadata=UNSEALED)
            seal(stream)
        partial.path.replace(file)
    except BaseException:
        partial.close()
        raise
    return partial


def read(file: Path) -> pl.DataFrame:
    """All rows of a file; errors as of ``check``."""
    check(file)
    try:
        return pl.read_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise BrokenFileError(f"it cannot be read: {type(error).__name__}") from error


def check(file: Path) -> str | None:
    """Make sure that a file is as it was sealed, unless this process has done so since it was written.

    Returns:
        The seal; ``None`` if it carries none.

    Raises:
        FileNotFoundError: It is gone.
        BrokenFileError: It is not as it was sealed, or cannot be read.
    """
    if (known := _sound.get(file)) and known[0] == _state(file.stat()):
        return known[1]
    with file.open("rb") as stream:
        state = _state(os.fstat(stream.fileno()))
        _sound[file] = state, _checked(stream)
    return _sound[file][1]


def check_all(files: Sequence[Path]) -> None:
    """``check`` several files at the same time; the error is that of the first one that has one, and ``file`` of it says which it is."""

    def told(file: Path) -> BrokenFileError | None:
        try:
            check(file)
        except BrokenFileError as error:
            error.file = file
            return error
        return None

    new = [file for file in files if file not in _sound or _sound[file][0] != _state(file.stat())]
    with ThreadPoolExecutor(_THREADS) as threads:
        for error in threads.map(told, new):
            if error:
                raise error


def _state(told: os.stat_result) -> tuple[int, int, int]:
    return told.st_ino, told.st_size, told.st_mtime_ns


def _checked(stream: BinaryIO) -> str | None:
    place = _place(stream)
    if place is None:
        _read_all(stream)
        return None
    stream.seek(place)
    sealed = stream.read(_DIGITS).decode("ascii", "replace")
    if _digest(stream, place) != sealed:
        raise BrokenFileError("its checksum is another one than when it was written")
    return sealed


def _place(stream: BinaryIO) -> int | None:
    """Where the digits of the seal are; ``None`` if there are none."""
    start, size = _footer(stream)
    stream.seek(start)
    # The last one: statistics of texts, which come before, can hold anything.
    found = stream.read(size - start).rfind(_BEFORE_DIGITS)
    return None if found < 0 else start + found + len(_BEFORE_DIGITS)


def _footer(stream: BinaryIO) -> tuple[int, int]:
    """Where the footer begins, and the size of the file."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END))
    end = stream.read(_END)
    start = size - _END - int.from_bytes(end[:4], "little")
    if size < len(_MAGIC) + _END or not end.endswith(_MAGIC) or start < len(_MAGIC):
        raise BrokenFileError("it is cut off, empty, or no Parquet file")
    return start, size


def _digest(stream: BinaryIO, place: int) -> str:
    """SHA-256 of the file with zeros in place of the digits."""
    digest = hashlib.sha256()
    stream.seek(0)
    left = place
    while left and (piece := stream.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    digest.update(b"0" * len(stream.read(_DIGITS)))
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _read_all(stream: BinaryIO) -> None:
    stream.seek(0)
    try:
        with pq.ParquetFile(stream, page_checksum_verification=True) as parquet:
            for name in parquet.metadata.metadata or {}:
                name.decode()
            for group in range(parquet.metadata.num_row_groups):
                parquet.read_row_group(group)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenFileError(f"it cannot be read: {type(error).__name__}") from error
