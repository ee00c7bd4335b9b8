"""Single values of a row, read the same whatever the file format: keys, times, flags.

What belongs here: what counts as absent, and one text or moment for the many spellings of the same. What does not: which column a value is
in (``layouts``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic_core import from_json

ABSENT = ("", "null", "none", "nan", "undefined", "nil", "n/a", "<na>", "\\n")
"""What says in a text, in lower case and without white space around it, that there is nothing."""

WHITE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""White space as Python has it; Polars has a little less."""

_ID_NAMES = ("id", "_id", "$oid", "$uuid", "user_id", "userId", "uid", "key")
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ]+(\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?)"
    r"\s*(?:(Z|UTC|GMT|(?:UTC|GMT)?[+-]\d\d(?::?\d\d(?::?\d\d)?)?)(?:\[[\w/+-]+\]|\s+[A-Z]{3,5})?|([A-Za-z]+/[\w/+-]+))?)?",
    re.IGNORECASE | re.ASCII,
)
"""Postgres, DuckDB, BigQuery, Java and Go, too, which add the name of the zone."""
_MAIL = re.compile(
    r"(?:[a-z]{3,9},?\s+)?\d\d?[\s-][a-z]{3}[\s-](?:\d\d|\d{4})\s+\d\d:\d\d(?::\d\d)?(?:\s*(?:[+-]\d{4}|UTC?|GMT|Z|[ECMP][SD]T))?"
    r"|[a-z]{3}\s+[a-z]{3}\s+\d\d?\s+\d\d:\d\d:\d\d\s+\d{4}",
    re.IGNORECASE | re.ASCII,
)
_SCRIPT = re.compile(r"[a-z]{3}\s([a-z]{3})\s(\d\d)\s(\d{4})\s(\d\d:\d\d:\d\d)\sGMT([+-]\d{4})(?:\s\([^()]*\))?", re.IGNORECASE | re.ASCII)
"""What JavaScript makes of a date."""
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_BELOW = 10**11
"""Larger numbers are milliseconds, a thousand times larger ones microseconds, and so on: seconds up to the year 5138."""
_HOME = re.compile(r"(?:[A-Za-z]:)?[\\/](?:home|Users)[\\/][^\\/]+")
_UNITS = (1, 10**3, 10**6, 10**9)
_TRUE, _FALSE = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}


_T = TypeVar("_T")


class MistypedError(ValueError):
    """A value that cannot be what its place needs; the message says what it is, without its text."""


def field(row: Any, path: str, meaning: Callable[[Any], _T]) -> _T:
    """What the value at a place (`at`) means.

    Raises:
        MistypedError: It cannot; the message names the place.
    """
    try:
        return meaning(at(row, path))
    except MistypedError as error:
        raise MistypedError(f"{path}: {error}") from None


class OutOfRange:
    """Stands for a value that Python cannot hold, such as a date after year 9999."""


def key(value: Any) -> str | None:
    """The text of a user, an id or a model; None for what says that there is none: blank, NaN, ``null``, ``None``.

    A whole float and a whole decimal have the integer's text, a UUID its usual one, bytes their text or else their hexadecimal digits, an
    object (also as JSON text) that of its id.

    Raises:
        MistypedError: An object without an id, or a list.
    """
    if isinstance(value, str):
        name = named(value)
        return None if name is None or name.strip().lower() in ABSENT else name
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | UUID):
        return str(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value == int(value) else f"{value.normalize():f}" if isinstance(value, Decimal) else repr(value)
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return value.hex()
        return key(text) if all(each.isprintable() or each in WHITE for each in text) else value.hex()
    if isinstance(value, datetime):
        return _utc(value).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping) and (name := _id_name(value)) is not None:
        return key(value[name])
    raise MistypedError(f"{_what(value)}, not a text or a number")


def named(text: str) -> str | None:
    """The id of an object that is written as JSON text; any other text as it is."""
    if not text.lstrip().startswith("{"):
        return text
    value = parsed(text)
    name = _id_name(value) if isinstance(value, Mapping) else None
    return text if name is None else key(value[name])


def _id_name(value: Mapping[str, Any]) -> str | None:
    """The name under which an object has its id, or an object that has one (``{"_id": {"$oid": …}}``)."""
    return next((name for name in _ID_NAMES if name in value and _is_id(value[name])), None)


def _is_id(value: Any) -> bool:
    return _id_name(value) is not None if isinstance(value, Mapping) else not isinstance(value, list)


def time(value: Any) -> datetime | None:
    """A moment in UTC; None for what says that there is none.

    Numbers are seconds since 1970, or milli-, micro- or nanoseconds by their size; texts are such numbers, ISO 8601 and what Postgres,
    DuckDB, BigQuery and e-mail make of it. A time without a zone is UTC.

    Raises:
        MistypedError: No time.
    """
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _since_1970(value)
    if isinstance(value, Mapping):  # MongoDB's extended JSON
        inner = next((value[name] for name in ("$date", "$numberLong", "$timestamp") if name in value), value)
        return time(inner) if inner is not value else _no_time(value)
    if not isinstance(value, str):
        return _no_time(value)
    text = value.strip()
    if text.lower() in ABSENT:
        return None
    if _NUMBER.fullmatch(text):
        return _since_1970(int(text) if text.lstrip("-").isdigit() else float(text))
    return _spelt(text)


def flag(value: Any) -> bool | None:
    """True or false, also as 0 and 1 or as text; None for what says neither.

    Raises:
        MistypedError: Something else.
    """
    text = key(value)
    if text is None:
        return None
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise MistypedError(f"{_what(value)} that is neither true nor false")


def is_set(value: Any) -> bool:
    """Whether something is there and not false, such as an error; also as text."""
    value = parsed(value)
    return value.strip().lower() not in (*ABSENT, *_FALSE) if isinstance(value, str) else bool(value)


def home(path: Any) -> str | None:
    """The home folder that a path lies in, which names the user of a machine; None if it lies in none."""
    found = _HOME.match(path) if isinstance(path, str) else None
    return found.group() if found else None


def at(row: Any, path: str) -> Any:
    """The value of a column, or of a field within it (``metadata.user_id``); None where there is none. JSON text is looked into."""
    row = row if isinstance(row, dict) else parsed(row)
    if not isinstance(row, Mapping):
        return None
    if path in row:
        return row[path]
    name, _, within = path.partition(".")
    inner = row.get(name) if within else None
    return None if inner is None else at(inner, within)


def parsed(value: Any) -> Any:
    """A value that may be JSON written as text or bytes, also twice."""
    while isinstance(value, str | bytes) and value.lstrip()[:1] in ("{", "[", '"', b"{", b"[", b'"'):
        try:
            value = from_json(value)
        except ValueError:
            break
    return value


def _utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise MistypedError("a time before year 1 or after year 9999") from None


def _since_1970(number: Any) -> datetime:
    unit = next((unit for unit in _UNITS if abs(number) < _SECONDS_BELOW * unit), 0)
    if not unit:
        raise MistypedError("a number that is no time")
    if number % 1 == 0:  # so that nanoseconds lose no more than they must
        return _EPOCH + timedelta(microseconds=int(number) * 10**6 // unit)
    return _EPOCH + timedelta(microseconds=round(float(number) / unit * 1e6))


def _spelt(text: str) -> datetime:
    match = _MOMENT.fullmatch(text)
    try:
        if match is None:
            mail = _SCRIPT.sub(r"\2 \1 \3 \4 \5", text)
            if _MAIL.fullmatch(mail) is None:
                raise MistypedError("a text that is no time")
            return _utc(parsedate_to_datetime(mail))
        day, clock, offset, place = match.groups()
        moment = datetime.fromisoformat(f"{day}T{_six_digits(clock or '00:00')}")
        if place is not None:
            return _utc(moment.replace(tzinfo=ZoneInfo(place)))
        offset = (offset or "").upper().removeprefix("UTC").removeprefix("GMT").removeprefix("Z")
        return _utc(datetime.fromisoformat(moment.isoformat() + (f"{offset}:00" if len(offset) == 3 else offset)))
    except MistypedError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OSError):
        raise MistypedError("a text that is no time") from None


def _six_digits(clock: str) -> str:
    whole, _, fraction = clock.replace(",", ".").partition(".")
    return f"{whole.zfill(5) if whole.count(':') == 1 else whole.zfill(8)}" + (f".{fraction[:6].ljust(6, '0')}" if fraction else "")


def _no_time(value: Any) -> datetime:
    raise MistypedError(f"{_what(value)}, not a time")


def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    names[OutOfRange] = "a value out of range"
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")
