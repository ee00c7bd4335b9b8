"""A line that its user had not said yet is told, whichever way it came about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import TURNS
from rlhi_dagster.personas.evidence import faults, lines_rest_on_earlier_messages
from rlhi_dagster.personas.versions import CORRECTION, EXTRACTIVE, Citation, table, version


def at(day: int) -> datetime:
    return datetime(2024, 5, day, tzinfo=UTC)


TURN_ROWS = pl.DataFrame(
    [
        dict.fromkeys(TURNS.columns) | {"turn_id": turn_id, "user_id": user, "asked_at": at(day), "prompt": "That is (too) long."}
        for turn_id, user, day in [("t1", "ann", 1), ("t3", "ann", 3), ("b1", "bob", 1)]
    ],
    schema=TURNS.schema,
).lazy()


def line(*citations: Citation, writer: str = EXTRACTIVE) -> pl.DataFrame:
    return table([version("ann", "length", "Prefers short answers.", (at(2), None), citations, writer)])


def test_lines_that_rest_on_earlier_messages_have_no_fault() -> None:
    for sound in (line(Citation("t1", "(too) long")), line(Citation("t1", None)), line(writer=CORRECTION), line().clear()):
        assert not any(faults(sound.lazy(), TURN_ROWS).values())


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (line(), "lines_without_evidence"),
        (line(Citation("t1", None), Citation("t3", None)), "late_messages"),
        (line(Citation("t1", None), Citation("b1", None)), "messages_of_others"),
        (line(Citation("t9", None)), "unknown_messages"),
        (line(Citation("t1", "too long")), "false_quotes"),
        (line(Citation("t3", "(too) long"), writer=CORRECTION), "late_messages"),
        (line(Citation("t1", None)).with_columns(quotes=pl.lit([], pl.List(pl.String))), "unmatched"),
    ],
)
def test_each_fault_is_counted_and_fails_the_check(lines: pl.DataFrame, fault: str) -> None:
    found: dict[str, Any] = faults(lines.lazy(), TURN_ROWS)
    assert {name: count for name, count in found.items() if count} == {fault: 1}
    assert not lines_rest_on_earlier_messages(lines.lazy(), TURN_ROWS).passed
    assert lines_rest_on_earlier_messages(line(Citation("t1", None)).lazy(), TURN_ROWS).passed
