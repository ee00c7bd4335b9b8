"""Users' corrections win over writers, and a file that cannot be meant is refused with the entry's number."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.tables import PERSONAS, TIME
from rlhi_dagster.personas.corrections import CorrectionsError, corrected, read
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.personas.versions import CORRECTION, EXTRACTIVE, Citation, table, version


def at(day: int) -> datetime:
    return datetime(2024, 5, day, tzinfo=UTC)


def written(*versions: tuple[str, str, str, int, int | None]) -> pl.DataFrame:
    """Lines from (user, slot, line, first day, last day)."""
    return table(
        version(user, slot, line, (at(first), last and at(last)), [Citation("t", None)], EXTRACTIVE)
        for user, slot, line, first, last in versions
    )


LINES = written(
    ("ann", "length", "Prefers short answers.", 1, 5),
    ("ann", "length", "Prefers long answers.", 5, None),
    ("ann", "tone", "Formal.", 2, None),
    ("bob", "length", "Prefers short answers.", 1, None),
)
USERS = pl.Series(["ann", "bob", "eve"])


def given(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "corrections.yaml"
    file.write_text(text)
    return file


def persona(lines: pl.DataFrame, user: str, day: int) -> str:
    moments = pl.DataFrame({"user_id": [user], "asked_at": [at(day)]}, schema_overrides={"asked_at": TIME})
    return personas_at(lines, moments)["persona"][0]


def test_an_edit_holds_from_its_moment_on_whatever_the_writer_says_later(tmp_path: Path) -> None:
    text = "- {user_id: ann, slot: length, at: 2024-05-03T00:00:00Z, line: Prefers three sentences.}"
    lines, counts = corrected(LINES, read(given(tmp_path, text), 160), USERS)
    assert lines.schema == PERSONAS.schema
    assert [persona(lines, "ann", day) for day in (3, 4, 9)] == [
        "- Prefers short answers.\n- Formal.",
        "- Prefers three sentences.\n- Formal.",
        "- Prefers three sentences.\n- Formal.",
    ]
    assert lines.filter(writer=CORRECTION).select("evidence", "quotes", "call_id", "valid_from").rows() == [([], [], None, at(3))]
    assert persona(lines, "bob", 9) == "- Prefers short answers."
    assert counts == {"applied": 1, "unknown_users": 0, "unknown_slots": 0}


def test_edits_follow_each_other_in_time_not_in_the_file(tmp_path: Path) -> None:
    text = """
- {user_id: ann, slot: length, at: 2024-05-08, line: Second.}
- {user_id: ann, slot: length, at: 2024-05-06 02:00:00+02:00, line: First.}
"""
    lines, _ = corrected(LINES, read(given(tmp_path, text), 160), USERS)
    assert [persona(lines, "ann", day).splitlines()[0] for day in (6, 7, 8, 9)] == [
        "- Prefers long answers.",
        "- First.",
        "- First.",
        "- Second.",
    ]


def test_a_deletion_takes_the_slot_away_at_all_times(tmp_path: Path) -> None:
    lines, counts = corrected(LINES, read(given(tmp_path, "- {user_id: ann, slot: length, delete: true}"), 160), USERS)
    assert lines.filter(user_id="ann")["slot"].to_list() == ["tone"]
    assert len(lines.filter(user_id="bob")) == 1
    assert counts["applied"] == 1


def test_unknown_users_and_slots_are_counted(tmp_path: Path) -> None:
    text = """
- {user_id: nobody, slot: length, at: 2024-05-03, line: Not applied.}
- {user_id: bob, slot: emoji, delete: true}
- {user_id: eve, slot: own, at: 2024-05-03, line: Is a nurse.}
"""
    lines, counts = corrected(LINES, read(given(tmp_path, text), 160), USERS)
    assert counts == {"applied": 2, "unknown_users": 1, "unknown_slots": 2}
    assert lines.filter(writer=CORRECTION)["user_id"].to_list() == ["eve"]
    assert persona(lines, "eve", 4) == "- Is a nurse."
    assert corrected(LINES, [], USERS)[0].sort("persona_line_id").equals(LINES.sort("persona_line_id"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("user_id: ann", "must be a list"),
        ("- ann", "entry 1: must be a mapping"),
        ("- {user_id: ann, slot: length, delete: true}\n- {slot: length, delete: true}", "entry 2: user_id: Field required"),
        ("- {user_id: ann, slot: length}", "entry 1: needs either line or delete"),
        ("- {user_id: ann, slot: length, at: 2024-05-03, line: x, delete: true}", "entry 1: needs either line or delete"),
        ("- {user_id: ann, slot: length, line: x}", "entry 1: a line needs at"),
        ("- {user_id: ann, slot: length, at: soon, line: x}", "entry 1: at: must be a date or a time"),
        ("- {user_id: ann, slot: length, at: 2024-05-03, line: ' '}", "entry 1: line must be one line"),
        ('- {user_id: ann, slot: length, at: 2024-05-03, line: "a\\nb"}', "entry 1: line must be one line"),
        (
            "- {user_id: ann, slot: length, at: 2024-05-03, line: Much too long to be a line.}",
            "entry 1: line has 27 characters, .* allows 20",
        ),
        ("- {user_id: ann, slot: length, delete: false}", "entry 1: delete"),
        ("- {user_id: ann, slot: length, delete: true, why: x}", "entry 1: why: Extra inputs"),
        ("- {user_id: 12, slot: length, delete: true}", "entry 1: user_id"),
        ("- {user_id: a, slot: b, at: 2024-05-03, line: x}\n- {user_id: a, slot: b, delete: true}", "entries 1 and 2: a deleted slot"),
        (
            "- {user_id: a, slot: b, at: 2024-05-03, line: x}\n- {user_id: a, slot: b, at: 2024-05-03, line: y}",
            "entries 1 and 2: both edit",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorrectionsError, match=message):
        read(given(tmp_path, text), 20)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorrectionsError, match=r"there is no file .*none.yaml"):
        read(tmp_path / "none.yaml", 160)
