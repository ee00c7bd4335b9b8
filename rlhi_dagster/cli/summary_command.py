"""``rlhi summary``: what a run came to, on one screen.

What belongs here: which tables it is told from, in which order, and what to do next. What does not: how a table of scores looks
(``score_table.py``).
"""

from __future__ import annotations

import shutil

import polars as pl

from rlhi_dagster.base import failures
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.cli import score_table
from rlhi_dagster.forgetting import marks
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training.recipes import BASE


def lines(profile: Profile, lake: Lake) -> list[str]:
    """The recipes' scores, or without scores what came out of preference data; where the report is, what next, what to train again."""
    try:
        scores = lake.scan("scores").collect()
    except failures.NotMadeError:
        found = preference_data(lake)
    else:
        found = [*score_table.board(scores, profile.arms), *_next(scores)]
    return [*found, *_report(lake), *(str(mark) for mark in marks.marks(lake))]


def _next(scores: pl.DataFrame) -> list[str]:
    best, rlhi = score_table.best(scores), "rlhi" if shutil.which("rlhi") else ".venv/bin/rlhi"
    compared = f"{rlhi} compare {best} {BASE}" if best and best != BASE else f"{rlhi} compare --help"
    told = {"make ui": "look at every step", f"{rlhi} why --random": "what a pair rests on", compared: "a difference, and what it is worth"}
    width = max(map(len, told))
    more = f"all {len(scores):,} rows (other metrics, follow-ups, cold start, safety): {rlhi} summary --json"
    return [more, "", "next:", *(f"  {command:<{width}}   {what}" for command, what in told.items())]


def _report(lake: Lake) -> list[str]:
    report = lake.artefact_path("report") / "index.html"
    if not report.is_file():
        return []
    return ["", f"report: {report}", f"what users complain about: {report.absolute().as_uri()}#wishes"]


def preference_data(lake: Lake) -> list[str]:
    """Rows of each table, by what became of them."""
    lines = []
    for name, column in (
        ("conversations", None),
        ("quarantine", "reason"),
        ("superseded", "cause"),
        ("explicit_feedback", "kind"),
        ("turns", None),
        ("users", "split"),
        ("feedback_labels", "label"),
        ("unmet_wishes", None),
        ("wildllamachat", None),
        ("rewrite_pairs", "drop_reasons"),
        ("reward_pairs", "drop_reasons"),
        ("explicit_pairs", "drop_reasons"),
        ("preference_pairs", "source"),
    ):
        try:
            frame = lake.scan(name)
        except failures.NotMadeError:
            lines.append(f"{name:<20} not materialized")
            continue
        rows = frame.select(pl.len()).collect().item()
        lines.append(f"{name:<20}{rows:>10,}")
        if column:
            # Of several reasons against a pair the first one counts, so that the counts add up.
            value = pl.col(column).list.first() if column == "drop_reasons" else pl.col(column)
            if name == "preference_pairs":
                value = pl.when("is_kept").then(value).otherwise(pl.format("dropped: {}", pl.col("drop_reasons").list.first()))
            counts = frame.group_by(value.fill_null("kept")).len().sort("len", descending=True).collect()
            lines += [f"  {value:<30}{count:>8,}  {count / rows:6.1%}" for value, count in counts.iter_rows()]
    return [*lines, "", f"tables: {lake.root}"]
