"""Users' own edits and deletions of persona lines, which win over any writer.

What belongs here: reading the corrections file and applying it to written lines. What does not: the writers, who never see it, so that a
correction changes nothing of what a model is asked.

The file is a YAML list; an entry is one of

    - {user_id: 4f0c..., slot: length, at: 2024-05-01T12:00:00Z, line: Prefers three sentences.}
    - {user_id: 4f0c..., slot: line-3, delete: true}

A deletion takes away what writers put into the slot, at all times. An edit puts the user's line into the slot from ``at`` on; what the
writer says later in the slot is not shown, what it said before stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from rlhi_dagster.personas.versions import CORRECTION, table, version


class CorrectionsError(ValueError):
    """A corrections file that cannot be used; the message names the file and the entry."""


class Correction(BaseModel, frozen=True, extra="forbid"):
    """An entry of the file."""

    user_id: str = Field(min_length=1)
    slot: str = Field(min_length=1)
    at: datetime | None = None
    line: str | None = None
    delete: Literal[True] | None = None

    @field_validator("at", mode="before")
    @classmethod
    def _is_a_moment(cls, given: Any) -> Any:
        try:
            moment = datetime.fromisoformat(given.isoformat() if isinstance(given, date) else given)
        except (TypeError, ValueError) as error:
            raise ValueError("must be a date or a time such as 2024-05-01T12:00:00Z") from error
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Correction:
        if (self.line is None) == (self.delete is None):
            raise ValueError("needs either line or delete: true")
        if self.line is not None and self.at is None:
            raise ValueError("a line needs at, the moment from which it holds")
        if self.line is not None and (not self.line.strip() or len(self.line.splitlines()) > 1):
            raise ValueError("line must be one line of text")
        return self


def read(file: Path, max_line_characters: int) -> list[Correction]:
    """Read and check a corrections file.

    Raises:
        CorrectionsError: There is no such file, or an entry is malformed, too long, or at odds with another.
    """
    if not file.is_file():
        raise CorrectionsError(f"personas.corrections: there is no file {file}; make it (an empty list is []), or set corrections to null")
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CorrectionsError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, list):
        raise CorrectionsError(f"{file} must be a list of entries")
    corrections = [_entry(f"{file}, entry {number}", entry, max_line_characters) for number, entry in enumerate(given, 1)]
    _reject_conflicts(file, corrections)
    return corrections


def _entry(place: str, given: Any, max_line_characters: int) -> Correction:
    if not isinstance(given, dict):
        raise CorrectionsError(f"{place}: must be a mapping of user_id, slot, at and line, or of user_id, slot and delete")
    try:
        found = Correction.model_validate(given)
    except ValidationError as error:
        said = "; ".join(": ".join([*map(str, each["loc"]), each["msg"].removeprefix("Value error, ")]) for each in error.errors())
        raise CorrectionsError(f"{place}: {said}") from error
    if found.line is not None and len(found.line) > max_line_characters:
        raise CorrectionsError(f"{place}: line has {len(found.line)} characters, personas.max_line_characters allows {max_line_characters}")
    return found


def _reject_conflicts(file: Path, corrections: Sequence[Correction]) -> None:
    ordered = sorted(enumerate(corrections, 1), key=lambda each: (each[1].user_id, each[1].slot, each[0]))
    for (first, one), (second, other) in pairwise(ordered):
        if (one.user_id, one.slot) == (other.user_id, other.slot) and (one.delete or other.delete):
            raise CorrectionsError(f"{file}, entries {first} and {second}: a deleted slot has no other entry; remove one of them")
    seen: dict[tuple[str, str, datetime | None], int] = {}
    for number, each in ordered:
        earlier = seen.setdefault((each.user_id, each.slot, each.at), number)
        if earlier != number:
            raise CorrectionsError(
                f"{file}, entries {earlier} and {number}: both edit the same slot at the same moment; remove one of them"
            )


def corrected(lines: pl.DataFrame, corrections: Sequence[Correction], users: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """Let corrections win over what was written.

    Args:
        lines: Rows of ``tables.PERSONAS``, from a writer.
        corrections: See ``read``.
        users: Ids of all users.

    Returns:
        The lines with corrections, and how often a correction was applied, its user is unknown (then it is not applied), or its user has
        no written line in the slot (a deletion then does nothing; an edit is applied).
    """
    known_users, known_slots = set(users), set(lines.select("user_id", "slot").iter_rows())
    applied = [each for each in corrections if each.user_id in known_users]
    of_slot: dict[tuple[str, str], list[tuple[datetime, str]]] = {(each.user_id, each.slot): [] for each in applied}
    for each in applied:
        if each.at is not None and each.line is not None:
            of_slot[each.user_id, each.slot].append((each.at, " ".join(each.line.split())))
    counts = {
        "applied": len(applied),
        "unknown_users": len(corrections) - len(applied),
        "unknown_slots": sum((each.user_id, each.slot) not in known_slots for each in applied),
    }
    added = [row for (user_id, slot), edits in of_slot.items() for row in _edited(user_id, slot, sorted(edits))]
    first_edits = [(user_id, slot, min(edits)[0] if edits else None, True) for (user_id, slot), edits in of_slot.items()]
    return pl.concat([_without_corrected(lines, first_edits), table(added)]), counts


def _edited(user_id: str, slot: str, edits: list[tuple[datetime, str]]) -> Iterator[dict[str, Any]]:
    """The user's own versions of a slot: each until the next."""
    for n, (at, line) in enumerate(edits, 1):
        until = edits[n][0] if n < len(edits) else None
        yield version(user_id, slot, line, (at, until), [], CORRECTION)


def _without_corrected(lines: pl.DataFrame, first_edits: list[tuple[str, str, datetime | None, bool]]) -> pl.DataFrame:
    """Written lines up to the first edit of their slot; none of a slot that was deleted."""
    schema: dict[str, Any] = {"user_id": pl.String, "slot": pl.String, "edited_at": lines.schema["valid_from"], "is_corrected": pl.Boolean}
    joined = lines.join(pl.DataFrame(first_edits, schema=schema, orient="row"), on=["user_id", "slot"], how="left", maintain_order="left")
    stays = pl.col("is_corrected").is_null() | (pl.col("valid_from") < pl.col("edited_at")).fill_null(False)
    ends = pl.min_horizontal("valid_until", "edited_at")  # null where neither ends it
    return joined.filter(stays).with_columns(valid_until=ends).select(lines.columns)
