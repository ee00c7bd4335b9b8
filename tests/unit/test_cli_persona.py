"""``rlhi persona``: the lines of a moment, with users' words as evidence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TURNS, USERS, Table
from rlhi_dagster.cli.persona_command import shown
from rlhi_dagster.personas.settings import PRECISION
from rlhi_dagster.personas.versions import CORRECTION, EXTRACTIVE, Citation, table, version

ANN, ANA, BOB = "a1f0", "a1c2", "b0"


def at(day: int) -> datetime:
    return datetime(2024, 5, day, 12, tzinfo=UTC)


def fill(declared: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(declared.columns), **record} for record in records], schema=declared.schema)


USER_ROWS = fill(USERS, [{"user_id": user} for user in (ANN, ANA, BOB)])
TURN_ROWS = fill(
    TURNS,
    [
        {"turn_id": "c1:0", "month": "2024-05", "asked_at": at(1), "prompt": f"{'before ' * 30}far\ntoo long{' after' * 30}"},
        {"turn_id": "c2:0", "month": "2024-05", "asked_at": at(3), "prompt": "word " * 80},
    ],
)
LINES = table(
    [
        version(ANN, "length", "Prefers short answers.", (at(1), at(3)), [Citation("c1:0", "too long")], EXTRACTIVE),
        version(ANN, "length", "Prefers long answers.", (at(3), None), [Citation("c2:0", None), Citation("gone:0", None)], "m@1", "k1"),
        version(ANN, "tone", "Be kind.", (at(4), None), [], CORRECTION),
    ]
)


def told(user: str, day: int, with_past: bool = False) -> str:
    return shown(USER_ROWS.lazy(), LINES.lazy(), TURN_ROWS.lazy(), user, at(day), with_past=with_past)


def test_lines_of_a_moment_with_the_words_that_support_them() -> None:
    found = told("a1f", 2).splitlines()
    assert found[0] == "user a1f0 at 2024-05-02 12:00:00: 1 line"
    assert found[2:4] == ["length: Prefers short answers.", "  since 2024-05-01 12:00:00 until 2024-05-03 12:00:00, by extractive"]
    assert found[4].startswith("  2024-05-01 12:00:00  …")
    assert "before far ‹too long› after" in found[4]
    assert found[4].endswith("…  (c1:0)")
    assert found[5:] == ["", PRECISION]
    assert len(found[4]) < 200


def test_a_line_counts_strictly_after_it_was_said_and_until_it_was_revised() -> None:
    assert told(ANN, 1) == "user a1f0 at 2024-05-01 12:00:00: 0 lines"
    assert "short answers" in told(ANN, 3)
    assert "long answers" not in told(ANN, 3)
    now = told(ANN, 9)
    assert "short answers" not in now
    assert "since 2024-05-03 12:00:00, by m@1, call k1" in now
    assert f"  {'word ' * 32}…  (c2:0)" in now
    assert "gone:0: no such message in turns" in now
    assert "tone: Be kind." in now
    assert PRECISION not in now  # no line by rule


def test_earlier_versions_are_shown_if_asked_for_and_later_ones_never() -> None:
    assert "length: Prefers short answers. (over)" in told(ANN, 9, with_past=True)
    assert "2 lines" in told(ANN, 9, with_past=True)
    assert "Be kind" not in told(ANN, 4, with_past=True)


def test_an_empty_persona_is_legal_and_a_wrong_fingerprint_is_not() -> None:
    assert told(BOB, 9) == "user b0 at 2024-05-09 12:00:00: 0 lines"
    with pytest.raises(ValueError, match="2 users' fingerprints begin with a1: a1c2, a1f0"):
        told("a1", 9)
    with pytest.raises(ValueError, match="no user's fingerprint begins with zz"):
        told("zz", 9)
    with pytest.raises(ValueError, match="give the fingerprint"):
        told("", 9)


def test_the_command_reads_the_lake(tmp_path: Path, rlhi: Callable[..., CompletedProcess[str]]) -> None:
    assert "users has not been materialized" in rlhi(tmp_path, "persona", ANN).stderr
    lake = Lake(root=str(tmp_path / "lake"))
    lake.write("users", USER_ROWS)
    lake.write("personas", LINES)
    lake.write("turns", TURN_ROWS, ["2024-05"])
    assert rlhi(tmp_path, "persona", ANN, "--at", "2024-05-02").stdout.splitlines()[2] == "length: Prefers short answers."
    assert "Be kind." in rlhi(tmp_path, "persona", ANN).stdout
    assert "(over)" in rlhi(tmp_path, "persona", ANN, "--all").stdout
    assert "soon is no time" in rlhi(tmp_path, "persona", ANN, "--at", "soon").stderr
    failed = rlhi(tmp_path, "persona", "a1")
    assert failed.returncode == 1
    assert failed.stderr.startswith("rlhi: 2 users")
