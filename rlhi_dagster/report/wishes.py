"""The report's account of what users complain about: wishes, when, on what, and in which words.

What belongs here: what the section shows; ``None`` where its table is missing. What does not: the counts (``feedback.wishes.counts``), text
and markup (``page.html``).

Examples are messages as they are stored, so redacted. They are drawn by a hash of their ids, from different users, and never of a group
that is not shown.
"""

from __future__ import annotations

import shlex
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import UNMET_WISHES
from rlhi_dagster.engines.questions import shortened
from rlhi_dagster.feedback.wishes import counts
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.words import NONE, Figure, Table, bracket, figure, percent, share

_MOST_WISHES = 12
_MOST_TOPICS = 8
_EXAMPLES = 3
"""Of a wish."""
_EXAMPLE_CHARACTERS = 240


def wishes(data: ReportData) -> dict[str, Any] | None:
    """What is wished, by how many users, whether it was settled, by month and by topic, with examples."""
    complaints = data.table("unmet_wishes", list(UNMET_WISHES.columns))
    if complaints is None:
        return None
    found = counts.by_group(complaints, "wish", data.min_users)
    shown = found.head(_MOST_WISHES)
    months = counts.by_month(complaints, data.min_users)
    title, n = "Complaints by wish", f"n = {len(complaints):,}"
    return {
        "sentence": _in_words(data, complaints),
        "min_users": data.min_users,
        "has_commands": data.is_of_run,
        "hidden": len(complaints) - int(found["complaints"].sum()),
        "figure": figure(counts.wishes_plot(shown), title, title, n) if len(shown) else None,
        "table": _table(found, len(complaints)) if len(found) else None,
        "months": _months(months) if len(months) else None,
        "topics": _topics(complaints, shown["wish"].to_list(), data.min_users),
        "examples": _examples(data, complaints, shown["wish"].to_list()),
    }


def _in_words(data: ReportData, complaints: pl.DataFrame) -> str:
    users, known = complaints["user_id"].n_unique(), complaints["is_resolved"].count()
    of_all = ""
    if data.feedback_labels is not None:
        follow_ups = int(data.feedback_labels.lazy().select(pl.len()).collect().item())
        of_all = f" of {follow_ups:,} follow-ups ({percent(len(complaints) / follow_ups if follow_ups else None, 0)})"
    everything = complaints.with_columns(all=pl.lit("all"))
    (settled,) = counts.by_group(everything, "all", 1).to_dicts()
    return (
        f"{len(complaints):,}{of_all} ask for another attempt and say what to change: complaints of {users:,} users. "
        f"{percent(settled['value'], 0)} {bracket(settled['ci_low'], settled['ci_high'], digits=0)} of the {known:,} of which it is known "
        "were settled later in the conversation: a later message was no re-attempt."
    )


def _table(found: pl.DataFrame, total: int) -> Table:
    lines = [
        [row["wish"], f"{row['complaints']:,}", percent(row["complaints"] / total, 0), f"{row['users']:,}", share(row)]
        for row in found.iter_rows(named=True)
    ]
    return Table(["wish", "complaints", "of all", "users", "settled later"], lines)


def _months(months: pl.DataFrame) -> Figure:
    title = "Share of each month's complaints"
    return figure(counts.months_plot(months), title, title, "95 % intervals, clustered by user", counts.marks(months))


def _topics(complaints: pl.DataFrame, shown: list[str], min_users: int) -> Table | None:
    topics = counts.by_group(complaints, "topic", min_users)["topic"].head(_MOST_TOPICS).to_list()
    cells = {(wish, topic): n for wish, topic, n in counts.by_topic(complaints, min_users).iter_rows()}
    if not topics or not shown:
        return None
    lines = [[wish, *(f"{cells[wish, topic]:,}" if (wish, topic) in cells else NONE for topic in topics)] for wish in shown]
    return Table(["wish", *topics], lines, f"Complaints; a dash where fewer than {min_users} users are behind a cell.")


def _examples(data: ReportData, complaints: pl.DataFrame, shown: list[str]) -> list[dict[str, Any]]:
    if data.turns is None:
        return []
    one_each = complaints.sort(pl.col("turn_id").hash(seed=0), "turn_id").unique(["wish", "user_id"], keep="first", maintain_order=True)
    drawn = one_each.filter(pl.col("wish").is_in(shown)).group_by("wish", maintain_order=True).head(_EXAMPLES)
    rows = data.turns.lazy().filter(pl.col("turn_id").is_in(drawn["turn_id"].implode())).select("turn_id", "prompt").collect()
    said = dict(rows.iter_rows())
    return [
        {
            "wish": wish,
            "said": [
                {
                    "text": shortened(said[turn_id], _EXAMPLE_CHARACTERS),
                    "topic": topic,
                    "command": f"rlhi why {shlex.quote(turn_id)}" if data.is_of_run else None,
                }
                for turn_id, topic in drawn.filter(wish=wish).select("turn_id", "topic").iter_rows()
                if turn_id in said
            ],
        }
        for wish in shown
    ]
