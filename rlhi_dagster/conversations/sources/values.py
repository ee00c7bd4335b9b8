"""The JSON values of a file: JSON lines, arrays, pretty-printed and glued objects, in UTF-8, UTF-16 or UTF-32.

What belongs here: from bytes to values, one at a time, so that a broken one cannot spoil its neighbours. What does not: what a value means
(``layouts``).

A file is read line by line, unless its first value is an array or goes over several lines: such a document is read value by value. Where
JSON is broken there is one broken value, and reading goes on with the next line, or in a document with the next value that looks like the
one before.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Set
from typing import IO, Any

from pydantic_core import from_json

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.sources import decompression
from rlhi_dagster.conversations.sources.files import foreign, open_file
from rlhi_dagster.conversations.sources.records import Broken

_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINES_LOOKED_AT = 20
_HEAD = 1 << 20
"""Lines, and bytes, from which it is told whether a file is read by lines."""
_NOTHING = b" \t\r\n\x00\x1e"  # white space, padding of crashed writers, and the record separator of JSON text sequences
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ENCODINGS = (
    # By their byte-order marks, which a broken line can have, too, and by the zeros in their first characters, which in JSON are ASCII.
    ("utf-32", re.compile(rb"\A(?s:(?:\xff\xfe\x00\x00)+[^\x00]\x00\x00\x00|(?:\x00\x00\xfe\xff)+\x00\x00\x00[^\x00])")),
    ("utf-16", re.compile(rb"\A(?s:(?:\xff\xfe)+[^\x00]\x00|(?:\xfe\xff)+\x00[^\x00])")),
    ("utf-32-le", re.compile(rb"(?s:[^\x00]\x00\x00\x00){2}")),
    ("utf-32-be", re.compile(rb"(?s:\x00\x00\x00[^\x00]){2}")),
    ("utf-16-le", re.compile(rb"(?s:[^\x00]\x00){2}")),
    ("utf-16-be", re.compile(rb"(?s:\x00[^\x00]){2}")),
)
_LONGEST = 1 << 28
"""Bytes of a value: what goes on for longer is no row of a log, and would fill the memory."""
_TOO_LONG = f"longer than {_LONGEST >> 20:,} MiB, which no row of a log is"
_TELLING = 16
"""Bytes from which the encoding is told."""
_LONGEST_WORD = 12  # -Infinity, and an escape of two halves
_MAX_DIGITS = 300
_WHITE = re.compile(r"[\s,\x00\x1e\ufeff]*")
_OBJECT = re.compile(r"[\r\n]([ \t]*)\{|\{")
_DOCUMENT = re.compile(r"\[[\s\x00\x1e\ufeff]*(?:[\[\]{\"]|\Z)")


def read(file: str) -> Iterator[Any]:
    """Yield every value of a file, or `Broken` in its place; of an array, its entries.

    Damage of a compressed file is one last `Broken`.
    """
    with open_file(file) as stream:
        yield from of(stream)


def of(stream: IO[bytes]) -> Iterator[Any]:
    """Yield what `read` does, of an open file."""
    source = _Damageable(decompression.chunks(stream))
    chunks = _utf8(source)
    head = next(chunks, b"")
    if (found := foreign(head)) is not None:
        yield _broken(found)
        return
    while len(_LINE_END.split(head, maxsplit=_LINES_LOOKED_AT)) <= _LINES_LOOKED_AT and len(head) < _HEAD and (more := next(chunks, b"")):
        head += more
    yield from (_of_document if _is_document(head) else _of_lines)(head, chunks, source)
    if source.damage and not source.is_told:
        yield _broken(source.damage)


class _Damageable:
    """Chunks of a file, with the damage that ended them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.damage: str | None = None
        self.is_told = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except decompression.DamagedError as error:
            self.damage = str(error)
            raise StopIteration from None

    def told(self, what: Broken) -> Broken:
        """A broken last value that the damage explains."""
        if self.damage is None:
            return what
        self.is_told = True
        return _broken(self.damage)


def _utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    while len(head) < _TELLING and (more := next(chunks, b"")):
        head += more
    encoding = next((name for name, start in _ENCODINGS if start.match(head)), None)
    if encoding is None:
        yield head
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    yield decoder.decode(head).encode("utf-8", "surrogatepass")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")


def _is_document(head: bytes) -> bool:
    """Whether the first value is an array, or goes over several lines."""
    lines = [line for line in _LINE_END.split(head, maxsplit=_LINES_LOOKED_AT) if _stripped(line)][:_LINES_LOOKED_AT]
    first = next((number for number, line in enumerate(lines) if _stripped(line).startswith((b"{", b"["))), None)
    if first is None:
        return False
    whole = [(_indent(line), _parsed(_stripped(line))) for line in lines[first:]]
    indent, value = whole[0]
    has_lines = any(isinstance(other, dict) and its <= indent for its, other in whole[1:])
    text = _stripped(lines[first]).decode(errors="replace")
    if text.startswith("["):
        has_rows = isinstance(value, list) and (not value or any(isinstance(entry, list | dict) for entry in value))
        return not has_lines and has_rows if isinstance(value, list) else _DOCUMENT.match(text) is not None
    return isinstance(value, Broken) and _value_at(text, 0) is None and not has_lines


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))


def _of_lines(head: bytes, chunks: Iterator[bytes], source: _Damageable) -> Iterator[Any]:
    number, held = 0, 0
    pieces: list[bytes] = []
    more: bytes | None = head
    while more is not None:
        pieces.append(more)
        is_too_long, held = held > _LONGEST, held + len(more)
        # A line may end in the next chunk, and so may the two characters of its end.
        if (b"\n" in more or b"\r" in more) and (not more.endswith(b"\r") or held > _LONGEST):
            *lines, rest = _LINE_END.split(b"".join(pieces))
            pieces, held = [rest], len(rest)
            for line in lines:
                number += 1
                if is_too_long:
                    yield _broken(f"line {number:,}: {_TOO_LONG}")
                    is_too_long = False
                elif stripped := _stripped(line):
                    yield from _of_line(stripped, number)
        elif held > _LONGEST:
            pieces = []  # nothing is kept of such a line but that it is there
        more = next(chunks, None)
    if held > _LONGEST:
        yield source.told(_broken(f"line {number + 1:,}: {_TOO_LONG}"))
    found: list[Any] = []
    for line in _LINE_END.split(b"".join(pieces)):
        number += 1
        if stripped := _stripped(line):
            found += _of_line(stripped, number)
    yield from found[:-1]
    if found:
        yield source.told(found[-1]) if isinstance(found[-1], Broken) else found[-1]


def _of_line(line: bytes, number: int) -> Iterator[Any]:
    value = _parsed(line)
    if not isinstance(value, Broken):
        yield value
        return
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        yield _broken(f"line {number:,}: no UTF-8 at byte {error.start}")
        return
    place, names = 0, None
    while place < len(text):
        found = _value_at(text, place)
        if found is not None:
            yield found[0]
            names = found[0].keys() if isinstance(found[0], dict) else names
            place = _WHITE.match(text, found[1]).end()  # type: ignore[union-attr]
            continue
        yield _broken(f"line {number:,}: {value.detail}")
        following = _next_object(text, place, names, None) if names else None
        if following is None:
            return
        place = following


def _of_document(head: bytes, chunks: Iterator[bytes], source: _Damageable) -> Iterator[Any]:
    """Values of one document, or of several one after the other."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, place, line, is_array, is_over = decoder.decode(head), 0, 1, False, False
    names: Set[str] | None = None  # of the last object
    indent: str | None = None  # of the last value that begins a line, if what is in it is indented deeper
    while True:
        place = _WHITE.match(text, place).end()  # type: ignore[union-attr]
        if text.startswith("]" if is_array else ("[", "]"), place):
            is_array, place = text[place] == "[", place + 1
            continue
        before = text[text.rfind("\n", 0, place) + 1 : place]
        if not before.strip(" \t\ufeff"):
            indent = None if text.startswith(f'{{\n{before}"', place) else before.lstrip("\ufeff")
        found = _value_at(text, place) if place < len(text) else None
        # A number or a word may go on in the next chunk, and what is no value yet may become one.
        is_part = not is_over and (found[1] == len(text) if found else _may_go_on(text, place))
        following = None if found or is_part else _next_object(text, place, names, indent)
        if is_part and len(text) - place > _LONGEST:
            yield source.told(_broken(f"line {line + text.count(chr(10), 0, place):,}: {_TOO_LONG}"))
            return
        if is_part or not (is_over or found or following):
            read = b"".join(more for _, more in zip(range(1 + ((len(text) - place) >> 16)), chunks, strict=False))
            start, is_over = place - len(before), not read
            line += text.count("\n", 0, start)
            text, place = text[start:] + decoder.decode(read, final=is_over), len(before)
        elif found:
            value, place = found
            yield value
            names = value.keys() if isinstance(value, dict) else names
        elif following:
            yield _broken(f"no JSON from line {line + text.count(chr(10), 0, place):,} on")
            place = following
        else:
            if place < len(text):
                yield source.told(_broken(f"no JSON from line {line + text.count(chr(10), 0, place):,} on"))
            elif is_array:
                yield source.told(_broken("the array is not closed: the file may have been cut off"))
            return


def _next_object(text: str, place: int, names: Set[str] | None, indent: str | None) -> int | None:
    """Where the object after a broken value begins: it has the names of the one before, or begins a line at the same indent."""
    for match in _OBJECT.finditer(text, place + 1):
        start = match.end() - 1
        if indent is not None and match[1] == indent:
            return start
        found = _value_at(text, start)
        if found is None or not isinstance(found[0], dict):
            continue
        value = found[0]
        if any(isinstance(each, list | dict) for each in value.values()) if names is None else 2 * len(names & value.keys()) > len(names):
            return start
    return None


def _may_go_on(text: str, place: int) -> bool:
    """Whether what begins here, and is no value, may become one with more text behind it."""
    try:
        _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or error.pos >= len(text) - _LONGEST_WORD
    except RecursionError:
        pass
    return False


def _broken(detail: str) -> Broken:
    return Broken(Reason.UNREADABLE_JSON, detail)


def _stripped(line: bytes) -> bytes:
    line = line.strip(_NOTHING)
    while line.startswith(_BYTE_ORDER_MARK):
        line = line[len(_BYTE_ORDER_MARK) :].strip(_NOTHING)
    return line


def _parsed(line: bytes) -> Any:
    """The value of a line, or `Broken`."""
    try:
        return from_json(line)
    except ValueError as error:
        said = str(error).replace(" at line 1 column ", " at column ")
    # What the fast parser refuses and JSON writers write: half characters, control characters, and numbers that no machine number holds.
    try:
        found = _value_at(line.decode(), 0)
    except UnicodeDecodeError:
        found = None
    return found[0] if found is not None and found[1] == len(line.decode()) else _broken(said)


def _value_at(text: str, place: int) -> tuple[Any, int] | None:
    try:
        value, end = _DECODER.raw_decode(text, place)
        return _mended(value), end
    except (ValueError, RecursionError):
        return None


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


_DECODER = json.JSONDecoder(parse_int=_number, strict=False)


def _mended(value: Any) -> Any:
    """The value without halves of characters (lone surrogates), which say nothing; pairs of halves become the character."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
        return value
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(each) for name, each in value.items()}
    return value
