"""The report's account of the logs: conversations, users, rejected rows, what follow-ups say, how different the requests are.

What belongs here: sections about what came in. What does not: what was made of it (``report_process``) and how well (``report_results``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.conversations.shape import conversation_lengths, entries, quarantine_by_month, users_by_activity
from rlhi_dagster.evaluation.report_data import ReportData
from rlhi_dagster.evaluation.report_page import (
    Html,
    Section,
    bracket,
    element,
    figure,
    figures,
    join,
    legend,
    missing,
    number,
    paragraph,
    percent,
    rate,
    table,
)
from rlhi_dagster.evaluation.report_plots import Mark, Series, bars, category_points
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.rates import TURNS, Denominator, Dimension
from rlhi_dagster.feedback.readings import readings, sentences
from rlhi_dagster.tables import CONTEXTUAL_DIVERSITY, REATTEMPT_RATES

_DENOMINATORS = {
    Denominator.USER_MESSAGES: ("of all user messages", "--s-rewrites"),
    Denominator.FOLLOW_UPS: ("of follow-ups", "--s-rewards"),
    Denominator.CONVERSATIONS: ("of conversations", "--s-sft"),
    Denominator.USERS: ("of users", "--s-other"),
}
_MOST_LEVELS = 12
"""Languages, models or months in a table; months are the latest, the others the largest."""


def logs(data: ReportData) -> Section:
    """What the source held: conversations by length, users by activity, rejected rows by month."""
    drawn: list[Html] = []
    gaps: list[Html] = []
    for words, caption, asset, counted in (
        ("Conversations by length", "user turns of a conversation", "conversations", conversation_lengths),
        ("Users by activity", "conversations of a user", "users", users_by_activity),
    ):
        frame = getattr(data, asset)
        counts = counted(frame.lazy()) if frame is not None else {}
        if counts:
            drawn.append(figure(_counts(counts, words), words, f"{caption}; n = {sum(counts.values()):,}"))
        else:
            gaps.append(missing(words.lower(), asset))
    return Section("logs", "The logs", join([figures(drawn) if drawn else "", *gaps, _redactions(data), _quarantine(data)]))


def _redactions(data: ReportData) -> Html:
    if data.conversations is None:
        return Html("")
    counts = entries(data.conversations.lazy().select("redactions"))
    found = ", ".join(f"{kind.replace('_', ' ')} {times:,}" for kind, times in counts.items())
    return paragraph(f"Replaced in messages before any model saw them: {found}." if found else "Nothing was replaced in messages.")


def _quarantine(data: ReportData) -> Html:
    if data.quarantine is None:
        return missing("rejected rows", "quarantine")
    found = quarantine_by_month(data.quarantine.lazy())
    if found.is_empty():
        return paragraph("No row of the source was rejected.")
    months = found.columns[1:-1]
    by_month = {month: int(found[month].sum()) for month in months}
    plot = figure(_counts(by_month, "Rejected rows by month"), "Rejected rows by month", f"n = {sum(by_month.values()):,}", cls="single")
    lines = [[row["reason"], *(f"{row[month]:,}" for month in months[-_MOST_LEVELS:]), f"{row['all']:,}"] for row in found.rows(named=True)]
    caption = "Every row of the source is accepted or rejected for exactly one reason." + (
        f" The latest {_MOST_LEVELS} of {len(months)} months are shown." if len(months) > _MOST_LEVELS else ""
    )
    return join([element("h3", "Rejected rows"), plot, table(["reason", *months[-_MOST_LEVELS:], "all months"], lines, caption)])


def reattempts(data: ReportData) -> Section:
    """How often users ask again and say what to change, in every reading of the paper's figures."""
    title = "How often users ask again"
    rates = data.table("reattempt_rates", list(REATTEMPT_RATES.columns))
    if rates is None:
        return Section("reattempts", title, missing("re-attempt rates", "reattempt_rates"))
    intro = paragraph(
        "The share of messages that ask for the same task again and say what to change. The paper reports 26.51 % of user messages and "
        "83.15 % after turn 5 on WildChat without naming the denominator, so the shares are given for each. Template traffic is "
        "many near-identical openings from the same tool."
    )
    months = _by_level(rates, Dimension.MONTH)
    plots = [
        _rate_plot(_cells(rates, Dimension.TURN), list(TURNS), "Re-attempts with feedback by turn", "turn of the conversation"),
        _rate_plot(_cells(rates, Dimension.MONTH), months, "Re-attempts with feedback by month", "month of the conversation's start"),
        _label_mix(data),
    ]
    tables = [_rate_table(rates, dimension) for dimension in (Dimension.TURN, Dimension.MONTH, Dimension.LANGUAGE, Dimension.MODEL)]
    return Section("reattempts", title, join([intro, _readings(rates), *plots, *tables]))


def diversity(data: ReportData) -> Section:
    """How different the contexts are in which requests are made."""
    title = "Contextual diversity"
    found = data.table("contextual_diversity", list(CONTEXTUAL_DIVERSITY.columns))
    if found is None:
        return Section("diversity", title, missing("contextual diversity", "contextual_diversity"))
    ordered = found.sort("value", "corpus", descending=[True, False], nulls_last=True)
    lines = [
        [
            row["corpus"],
            f"{row['n']:,}",
            _measured(row["value"], row["ci_low"], row["ci_high"], 3),
            number(row["vendi_score"], 1),
            _measured(row["vendi_score_matched"], row["vendi_ci_low"], row["vendi_ci_high"], 1),
            _measured(row["cluster_entropy_matched"], row["cluster_ci_low"], row["cluster_ci_high"], 2),
        ]
        for row in ordered.iter_rows(named=True)
    ]
    intro = paragraph(
        "Mean pairwise cosine distance between distinct opening requests, and beside it the Vendi score (the effective number of different "
        "requests) and the entropy of clusters in bits. The last two grow with a corpus, so they are compared at equal size, half of the "
        "smallest corpus. Values depend on the encoder: compare the order of corpora, not the numbers, with other reports (the paper gives "
        "WildChat 0.865, HelpSteer2 0.848, HH-RLHF 0.751, encoder and formula unnamed)."
    )
    columns = ["corpus", "n", "mean distance", "Vendi score", "Vendi score, equal n", "cluster entropy, equal n"]
    sizes = ", ".join(f"{size:,}" for size in sorted(set(found["matched_n"].drop_nulls())))
    caption = f"Encoder: {', '.join(sorted(set(found['encoder'])))}. In brackets 95 % intervals." + (f" Equal n: {sizes}." if sizes else "")
    return Section("diversity", title, join([intro, table(columns, lines, caption)]))


def _measured(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    return number(value, digits) if low is None else f"{number(value, digits)} {bracket(low, high, 1, digits)}"


def _counts(counts: Mapping[str, int], name: str) -> Html:
    total = sum(counts.values()) or 1
    return bars([(label, n, f"{n:,} ({percent(n / total, 0)})", Mark("--s-rewrites")) for label, n in counts.items()], name)


def _readings(rates: pl.DataFrame) -> Html:
    found = readings(rates)
    lines = [
        [row["paper"], row["reading"], row["templates"], rate(row), f"{row['difference'] * 100:+.1f}".replace("-", "\u2212")]
        for row in found.iter_rows(named=True)
    ]
    columns = ["the paper", "reading", "templates", "here", "points off"]
    said = [paragraph(sentence) for sentence in sentences(found)]
    return join([element("h3", "All readings beside the paper's figures"), *said, table(columns, lines, text_columns=(1, 2))])


def _cells(rates: pl.DataFrame, dimension: Dimension) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = rates.filter(dimension=dimension.value).iter_rows(named=True)
    return {(row["level"], row["denominator"], row["templates"]): row for row in rows}


def _by_level(rates: pl.DataFrame, dimension: Dimension) -> list[str]:
    """Levels of a dimension that are shown: all turns, the latest months, the largest of the others."""
    if dimension is Dimension.TURN:
        return list(TURNS)
    sizes = rates.filter(dimension=dimension.value, denominator=Denominator.USER_MESSAGES.value, templates="included")
    if dimension is Dimension.MONTH:
        return sizes["level"].sort().tail(_MOST_LEVELS).to_list()
    return sizes.sort("n", "level", descending=[True, False])["level"].head(_MOST_LEVELS).to_list()


def _rate_plot(cells: Mapping[tuple[str, str, str], Mapping[str, Any]], levels: list[str], name: str, axis: str) -> Html:
    series, names = [], []
    for denominator in (Denominator.FOLLOW_UPS, Denominator.CONVERSATIONS):
        words, tone = _DENOMINATORS[denominator]
        for templates in ("included", "excluded"):
            mark = Mark(tone, templates == "included")
            spots = [
                (position, row["value"], row["ci_low"], row["ci_high"])
                for position, level in enumerate(levels)
                if (row := cells.get((level, denominator, templates))) is not None and row["value"] is not None
            ]
            if spots:
                series.append(Series(mark, spots))
                names.append((f"{words}, templates {templates}", mark.css, "hollow" if mark.is_hollow else ""))
    if not series:
        return Html("")
    drawn = category_points(levels, series, name, axis=axis, limits=(0.0, min(1.0, 1.05 * _highest(series))))
    return join([figure(drawn, name, "95 % intervals, clustered by user", cls="single"), legend(names)])


def _highest(series: list[Series]) -> float:
    """The top of the axis: the highest value, or interval end of a value that is not mostly interval."""
    ends = [high for one in series for _, value, low, high in one.points if high is not None and low is not None and high - low <= 0.5]
    return max([*ends, *(point[1] for one in series for point in one.points), 0.05])


def _rate_table(rates: pl.DataFrame, dimension: Dimension) -> Html:
    cells, levels = _cells(rates, dimension), _by_level(rates, dimension)
    total = rates.filter(dimension=dimension.value)["level"].n_unique()
    kinds = [(denominator, templates) for denominator in _DENOMINATORS for templates in ("included", "excluded")]
    # At a turn all user messages are follow-ups: one of the two says it.
    kinds = [kind for kind in kinds if dimension is not Dimension.TURN or kind[0] is not Denominator.USER_MESSAGES]
    columns = [dimension.value, *(f"{_DENOMINATORS[denominator][0]}, templates {templates}" for denominator, templates in kinds)]
    lines = [[level, *(rate(cells.get((level, *kind))) for kind in kinds)] for level in levels]
    shown = "the latest" if dimension is Dimension.MONTH else "the largest"
    left_out = f"{shown} {len(levels)} of {total}; the table reattempt_rates has all" if total > len(levels) else ""
    return join([element("h3", f"By {dimension.value}"), table(columns, lines, left_out)])


def _label_mix(data: ReportData) -> Html:
    found = data.table("feedback_labels", ["label"])
    if found is None:
        return missing("labels of follow-ups", "feedback_labels")
    counts = dict(found["label"].value_counts().iter_rows())
    mix = {label.value: counts.get(label.value, 0) for label in Feedback}
    return figure(_counts(mix, "Labels of follow-ups"), "What follow-ups do", f"n = {len(found):,} follow-ups", cls="single")
