"""The bytes of a file, decompressed as far as they can be.

What belongs here: gzip and zstd, told by their first bytes and not by a file's name, of many members, with padding, and with damage. What
does not: what the bytes say (``values``).

Decompressors lose what they have found since the last call when they meet damage. So a damaged member is read once more, the last piece of
it byte by byte, and every byte that can be had is delivered.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import zstandard

_AT_ONCE, _AT_ONCE_OF_ZSTD = 1 << 16, 1 << 12
"""Bytes read of a file; four of zstd can become 128 KiB, so a piece becomes 128 MiB at most, and one of gzip 64."""
_YIELDED = 1 << 20
"""Bytes given on at once: of as many line breaks a reader makes as many lines."""
_MOST, _MOST_TIMES = 1 << 28, 500
"""Bytes that any file may become; and how many times its own size, where that is more. Logs become some 5 to 50 times their size."""
_GZIP = (b"\x1f\x8b",)
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i]) + b"\x2a\x4d\x18" for i in range(16)))  # frames, and frames to be skipped
_LONGEST_START = 4
_ERRORS = (zlib.error, zstandard.ZstdError)
_LARGEST_WINDOW = 1 << 31  # of `zstd --ultra --long=31`


class DamagedError(ValueError):
    """A compressed file cannot be read beyond some byte; the message says where and why."""


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a seekable file, decompressed if it is compressed.

    Zeros between and after complete members, and other bytes after the last, are no damage, and are left out.

    Raises:
        DamagedError: After everything that could be decompressed, or once that is so much that the file can be no log.
    """
    data = stream.read(_AT_ONCE)
    starts = next((starts for starts in (_GZIP, _ZSTD) if data.startswith(starts)), None)
    if starts is None:
        while data:
            yield data
            data = stream.read(_AT_ONCE)
        return
    new, at_once = (_gzip, _AT_ONCE) if starts is _GZIP else (_zstd, _AT_ONCE_OF_ZSTD)
    if len(data) > at_once:
        stream.seek(0)
        data = stream.read(at_once)
    start = read = made = 0  # of the member and of its piece in hand, in the file; and what has come out
    member = new()
    while data:
        try:
            found = member.decompress(data)
        except _ERRORS as error:
            rest, place = _again(stream, new, start, read, at_once)
            yield rest
            raise DamagedError(f"the compressed file is damaged at byte {place:,} ({str(error).split(': ')[-1]})") from error
        yield from (found[place : place + _YIELDED] for place in range(0, len(found), _YIELDED))
        read, made = read + len(data), made + len(found)
        if made > max(_MOST, _MOST_TIMES * read):
            raise DamagedError(
                f"the compressed file has become {made >> 20:,} MiB at byte {read:,}, more than {_MOST_TIMES} times its size: no log does; "
                "if it is right, give it decompressed"
            )
        data = member.unused_data
        if not member.eof:
            data = stream.read(at_once)
            continue
        data, padding = _without_padding(stream, data, at_once)
        start = read = read - len(member.unused_data) + padding
        if not data.startswith(starts):
            return
        member = new()
    raise DamagedError(f"the compressed file is cut off at byte {read:,}")


def _without_padding(stream: IO[bytes], data: bytes, at_once: int) -> tuple[bytes, int]:
    """What follows ``data`` and zeros at its beginning, enough of it to tell what it is; and the number of zeros."""
    padding = 0
    while True:
        found = data.lstrip(b"\x00")
        padding += len(data) - len(found)
        more = stream.read(at_once) if len(found) < _LONGEST_START else b""
        if not more:
            return found, padding
        data = found + more


def _gzip() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


def _again(stream: IO[bytes], new: Callable[[], Any], start: int, failed: int, at_once: int) -> tuple[bytes, int]:
    """What can be had of the piece of a member that begins at byte ``failed`` of the file, and the byte where it ends."""
    stream.seek(start)
    member = new()
    while start < failed:
        piece = stream.read(min(at_once, failed - start))
        member.decompress(piece)
        start += len(piece)
    found = bytearray()
    for byte in stream.read(2 * at_once):
        try:
            found += member.decompress(bytes([byte]))
        except _ERRORS:
            break
        start += 1
    return bytes(found), start
