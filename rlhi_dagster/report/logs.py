"""The report's account of the logs: conversations, users, rejected rows, what follow-ups say, how different the requests are.

What belongs here: what sections about what came in show; ``None`` where a table for it is missing. What does not: what was made of it
(``process``), how well (``results``), text and markup (``page.html``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.tables import CONTEXTUAL_DIVERSITY, REATTEMPT_RATES
from rlhi_dagster.conversations.shape import conversation_lengths, entries, quarantine_by_month, users_by_activity
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.rates.paper_figures import readings, sentences
from rlhi_dagster.feedback.rates.shares import TURNS, Denominator, Dimension
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.words import Figure, Table, counts, figure, measured, number, percent, share

_DENOMINATORS = {
    Denominator.USER_MESSAGES: "of all user messages",
    Denominator.FOLLOW_UPS: "of follow-ups",
    Denominator.CONVERSATIONS: "of conversations",
    Denominator.USERS: "of users",
}
_DRAWN = {Denominator.FOLLOW_UPS: "--s-3", Denominator.CONVERSATIONS: "--s-1"}
_MOST_LEVELS = 12
"""Languages, models or months in a table; months are the latest, the others the largest."""

Cells = Mapping[tuple[str, str, str], Mapping[str, Any]]


def logs(data: ReportData) -> dict[str, Any]:
    """What the source held: conversations by length, users by activity, rejected rows by month."""
    drawn: list[Figure] = []
    gaps: list[tuple[str, str]] = []
    for words, caption, asset, counted in (
        ("Conversations by length", "user turns of a conversation", "conversations", conversation_lengths),
        ("Users by activity", "conversations of a user", "users", users_by_activity),
    ):
        frame = getattr(data, asset)
        found = counted(frame.lazy()) if frame is not None else {}
        if found:
            drawn.append(counts(found, words, words, f"{caption}; n = {sum(found.values()):,}"))
        else:
            gaps.append((words.lower(), asset))
    redactions = None if data.conversations is None else entries(data.conversations.lazy().select("redactions"))
    return {"figures": drawn, "gaps": gaps, "redactions": redactions, "quarantine": _quarantine(data)}


def _quarantine(data: ReportData) -> dict[str, Any] | None:
    """Rejected rows by month and reason; empty if there are none."""
    if data.quarantine is None:
        return None
    found = quarantine_by_month(data.quarantine.lazy())
    if found.is_empty():
        return {}
    months = found.columns[1:-1]
    latest, by_month = months[-_MOST_LEVELS:], {month: int(found[month].sum()) for month in months}
    lines = [[row["reason"], *(f"{row[month]:,}" for month in latest), f"{row['all']:,}"] for row in found.rows(named=True)]
    caption = "Every row of the source is accepted or rejected for exactly one reason." + (
        f" The latest {_MOST_LEVELS} of {len(months)} months are shown." if len(months) > _MOST_LEVELS else ""
    )
    title = "Rejected rows by month"
    return {
        "figure": counts(by_month, title, title, f"n = {sum(by_month.values()):,}"),
        "table": Table(["reason", *latest, "all months"], lines, caption),
    }


def reattempts(data: ReportData) -> dict[str, Any] | None:
    """How often users ask again and say what to change, in every reading of the paper's figures."""
    rates = data.table("reattempt_rates", list(REATTEMPT_RATES.columns))
    if rates is None:
        return None
    found = readings(rates).filter(pl.lit(data.is_of_run))
    lines = [
        [
            *(row["paper"], row["reading"], row["templates"], share(row), f"{row['unanswered']:,}"),
            f"{row['difference'] * 100:+.1f}".replace("-", "\u2212"),
        ]
        for row in found.iter_rows(named=True)
    ]
    drawn = [
        _rate_plot(rates, Dimension.TURN, "Re-attempts with feedback by turn", "turn of the conversation"),
        _rate_plot(rates, Dimension.MONTH, "Re-attempts with feedback by month", "month of the conversation's start"),
        _model_plot(rates),
    ]
    return {
        "sentences": sentences(found),
        "readings": Table(["the paper", "reading", "templates", "here", "of them unanswered", "points off"], lines, text_columns=(1, 2))
        if lines
        else None,
        "figures": [plot for plot in drawn if plot],
        "labels": _label_mix(data),
        "tables": {
            dimension.value: _rate_table(rates, dimension)
            for dimension in (Dimension.TURN, Dimension.MONTH, Dimension.LANGUAGE, Dimension.MODEL)
        },
    }


def diversity(data: ReportData) -> Table | None:
    """How different the contexts are in which requests are made."""
    found = data.table("contextual_diversity", list(CONTEXTUAL_DIVERSITY.columns))
    if found is None:
        return None
    lines = [
        [
            row["corpus"],
            f"{row['n']:,}",
            measured(row["value"], row["ci_low"], row["ci_high"], 3),
            number(row["vendi_score"], 1),
            measured(row["vendi_score_matched"], row["vendi_ci_low"], row["vendi_ci_high"], 1),
            measured(row["cluster_entropy_matched"], row["cluster_ci_low"], row["cluster_ci_high"], 2),
        ]
        for row in found.sort("value", "corpus", descending=[True, False], nulls_last=True).iter_rows(named=True)
    ]
    columns = ["corpus", "n", "mean distance", "Vendi score", "Vendi score, equal n", "cluster entropy, equal n"]
    sizes = ", ".join(f"{size:,}" for size in sorted(set(found["matched_n"].drop_nulls())))
    caption = f"Encoder: {', '.join(sorted(set(found['encoder'])))}. In brackets 95 % intervals." + (f" Equal n: {sizes}." if sizes else "")
    return Table(columns, lines, caption)


def _cells(rates: pl.DataFrame, dimension: Dimension) -> Cells:
    rows = rates.filter(dimension=dimension.value).iter_rows(named=True)
    return {(row["level"], row["denominator"], row["templates"]): row for row in rows}


def _levels(rates: pl.DataFrame, dimension: Dimension) -> list[str]:
    """Levels of a dimension that are shown: all turns, the latest months, the largest of the others."""
    if dimension is Dimension.TURN:
        return list(TURNS)
    sizes = rates.filter(dimension=dimension.value, denominator=Denominator.USER_MESSAGES.value, templates="included")
    if dimension is Dimension.MONTH:
        return sizes["level"].sort().tail(_MOST_LEVELS).to_list()
    return sizes.sort("n", "level", descending=[True, False])["level"].head(_MOST_LEVELS).to_list()


def _rate_plot(rates: pl.DataFrame, dimension: Dimension, name: str, axis: str) -> Figure | None:
    cells, levels = _cells(rates, dimension), _levels(rates, dimension)
    series: dict[str, plots.Series] = {}
    for denominator, tone in _DRAWN.items():
        for templates in ("included", "excluded"):
            spots = [
                (position, row["value"], row["ci_low"], row["ci_high"])
                for position, level in enumerate(levels)
                if (row := cells.get((level, denominator, templates))) is not None and row["value"] is not None
            ]
            if spots:
                mark = plots.Mark(tone, templates == "included")
                series[f"{_DENOMINATORS[denominator]}, templates {templates}"] = plots.Series(mark, spots)
    if not series:
        return None
    every = list(series.values())
    drawn = plots.category_points(levels, every, axis=axis, limits=(0.0, min(1.0, 1.05 * _highest(every))))
    return figure(drawn, name, name, "95 % intervals, clustered by user", {label: one.mark for label, one in series.items()})


def _model_plot(rates: pl.DataFrame) -> Figure | None:
    """Of follow-ups, by the model that replied; a value without an interval is that of a single user and is in the table alone."""
    cells = _cells(rates, Dimension.MODEL)
    of_model = [(model, cells.get((model, Denominator.FOLLOW_UPS.value, "included"))) for model in _levels(rates, Dimension.MODEL)]
    mark = plots.Mark(_DRAWN[Denominator.FOLLOW_UPS])
    rows = [
        plots.Row(model, row["value"], row["ci_low"], row["ci_high"], f"{percent(row['value'])}, n = {row['n']:,}", mark)
        for model, row in of_model
        if row is not None and row["value"] is not None and row["ci_low"] is not None
    ]
    if not rows:
        return None
    name = "Re-attempts with feedback by model"
    return figure(plots.forest(rows), name, name, "share of follow-ups, 95 % intervals, clustered by user")


def _highest(series: list[plots.Series]) -> float:
    """The top of the axis: the highest value, or interval end of a value that is not mostly interval."""
    ends = [high for one in series for _, value, low, high in one.points if high is not None and low is not None and high - low <= 0.5]
    return max([*ends, *(point[1] for one in series for point in one.points), 0.05])


def _rate_table(rates: pl.DataFrame, dimension: Dimension) -> Table:
    cells, levels = _cells(rates, dimension), _levels(rates, dimension)
    total = rates.filter(dimension=dimension.value)["level"].n_unique()
    kinds = [(denominator, templates) for denominator in _DENOMINATORS for templates in ("included", "excluded")]
    # At a turn all user messages are follow-ups: one of the two says it.
    kinds = [kind for kind in kinds if dimension is not Dimension.TURN or kind[0] is not Denominator.USER_MESSAGES]
    columns = [dimension.value, *(f"{_DENOMINATORS[denominator]}, templates {templates}" for denominator, templates in kinds)]
    lines = [[level, *(share(cells.get((level, *kind))) for kind in kinds)] for level in levels]
    shown = "the latest" if dimension is Dimension.MONTH else "the largest"
    left_out = f"{shown} {len(levels)} of {total}; the table reattempt_rates has all" if total > len(levels) else ""
    return Table(columns, lines, left_out)


def _label_mix(data: ReportData) -> Figure | None:
    found = data.table("feedback_labels", ["label"])
    if found is None:
        return None
    known = dict(found["label"].value_counts().iter_rows())
    mix = {label.value: known.get(label.value, 0) for label in Feedback}
    return counts(mix, "Labels of follow-ups", "What follow-ups do", f"n = {len(found):,} follow-ups")
