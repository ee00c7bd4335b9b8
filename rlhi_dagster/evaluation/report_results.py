"""The report's results: scores, comparisons, cold start, reasoning, samples.

What belongs here: sections about replies and verdicts. What does not: sections about how the data and checkpoints came to be
(``report_process``) and the statistics themselves (``scores``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.judges import count_illegible
from rlhi_dagster.evaluation.report_data import ReportData
from rlhi_dagster.evaluation.report_page import (
    Html,
    Section,
    bracket,
    element,
    escape,
    figure,
    figures,
    inline,
    join,
    legend,
    missing,
    paragraph,
    percent,
    points,
    share_cell,
    table,
)
from rlhi_dagster.evaluation.report_plots import Row, Series, category_points, forest
from rlhi_dagster.evaluation.scores import HISTORY_BUCKETS, NO_JUDGE, by_earlier_conversations, comparisons
from rlhi_dagster.tables import JUDGEMENTS, SCORES
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import BASE

SAMPLES = 6

METRIC_WORDS = {
    Metric.ALL_PREFERENCES_MET: "All preferences met",
    Metric.PREFERENCES_MET: "Preferences met",
    Metric.WIN_RATE: "Win rate against base",
    Metric.MALFORMED: "Malformed replies",
    Metric.ERROR_RATE: "No reply (errors)",
    Metric.POSITION_BIAS: "Verdict follows order",
    Metric.ACCURACY: "Right answers",
}
_METRIC_NOTES = {
    Metric.ALL_PREFERENCES_MET: "share of replies that are intact and meet every preference of their user",
    Metric.PREFERENCES_MET: "mean share of the user's preferences a reply meets",
    Metric.WIN_RATE: "both orders averaged, ties count half",
    Metric.MALFORMED: "share of replies that are broken text; lower is better",
}
_PRIMARY = (Metric.ALL_PREFERENCES_MET, Metric.WIN_RATE)
_LOWER_IS_BETTER = (Metric.MALFORMED,)


def lead(data: ReportData) -> Html:
    """The top of the page: the result in a sentence per method, the numbers behind it, and what ran."""
    rows = _scores(data)
    primary = _primary_rows(rows)
    body = []
    if primary:
        metric = Metric(primary[0]["metric"])
        by_recipe = {row["recipe"]: row for row in primary}
        shown = [by_recipe[recipe] for recipe in data.leading(by_recipe)]
        body.append(paragraph(inline(_verdict_in_words(rows, shown)), cls="lede"))
        body.append(element("div", *(_card(data, row, metric) for row in shown), cls="cards"))
    else:
        body.append(missing("scores", "scores"))
    if data.headline:
        facts = (element("div", element("dt", name), element("dd", value)) for name, value in data.headline.items())
        body.append(element("dl", *facts, cls="facts"))
    return join(body)


def results(data: ReportData) -> Section:
    """Every recipe on the held-out users' requests: forest plots and the table behind them."""
    rows = [row for row in _scores(data) if row["benchmark"] == Benchmark.USER_EVAL]
    if not rows:
        return Section("results", "Held-out users", missing("scores on held-out users", "scores"))
    plots = []
    judges = sorted({row["judge"] for row in rows})
    for metric in _METRIC_NOTES:
        for judge in judges:
            of_metric = [row for row in rows if row["metric"] == metric and row["judge"] == judge]
            if of_metric:
                plots.append(_forest(data, metric, judge, of_metric))
    intro = paragraph(
        "Each line is a recipe: the point is the value, the bar its 95 % interval, resampled over users. "
        "Hollow points are controls, which should stay near the base if the method works for the reason it claims."
    )
    return Section("results", "Held-out users", join([intro, figures(plots), _score_table(data, rows), _judge_remarks(data, rows)]))


def differences(data: ReportData) -> Section:
    """The claims as paired differences in plain words."""
    title = "What beats what"
    judgements = data.table("judgements", list(JUDGEMENTS.columns))
    found = None if judgements is None else comparisons(judgements, recipes.comparisons(data.recipes))
    if found is None or found.is_empty():
        return Section("comparisons", title, missing("paired comparisons (they need at least two recipes)", "judgements"))
    body: list[object] = [
        paragraph(
            "Both recipes answer the same requests, and the difference is taken request by request. An interval that excludes 0 "
            "is called better or worse; otherwise the two are not told apart. Detectable is the smallest true difference that a test "
            "of this size would find four times out of five. Nothing is corrected for looking at several comparisons."
        )
    ]
    for (benchmark, judge), group in found.group_by("benchmark", "judge", maintain_order=True):
        metrics = [Metric(name) for name in group["metric"].unique(maintain_order=True)]
        rows = list(group.iter_rows(named=True))
        first = [row for row in rows if row["metric"] == metrics[0]]
        body.append(element("h3", f"{METRIC_WORDS[metrics[0]]} ({benchmark}, judge {judge})"))
        body.append(figure(_difference_forest(data, first, METRIC_WORDS[metrics[0]]), "Differences in percentage points", cls="single"))
        body.append(element("ul", *(element("li", _sentence(row, metrics[0])) for row in first), cls="sentences"))
        if metrics[1:]:
            body.append(_other_differences(rows, metrics[1:]))
    return Section("comparisons", title, join(body))


def cold_start(data: ReportData) -> Section:
    """The primary metric by number of the user's earlier conversations."""
    title = "How much history it takes"
    primary = _primary_rows(_scores(data))
    metric = Metric(primary[0]["metric"]) if primary else Metric.ALL_PREFERENCES_MET
    judgements = data.table("judgements", list(JUDGEMENTS.columns))
    prompts = data.table("eval_prompts", ["prompt_id", "benchmark", "earlier_conversations"])
    curve = None if judgements is None or prompts is None else by_earlier_conversations(judgements, prompts, metric)
    if curve is None or curve.is_empty():
        return Section("history", title, missing("verdicts on held-out users", "eval_prompts", "judgements"))
    labels = [label for label, _, _ in HISTORY_BUCKETS]
    body: list[object] = [
        paragraph(
            f"{METRIC_WORDS[metric]}, by the number of conversations the user had before the request. With none there is no persona, "
            "so nothing personal can be met except by chance."
        )
    ]
    for judge in curve["judge"].unique().sort():
        of_judge = curve.filter(judge=judge)
        names = data.ranked(of_judge["recipe"])
        plotted = [recipe for recipe in names if not data.is_control(recipe)]
        series = [
            Series(
                data.mark(recipe),
                [
                    (labels.index(row["earlier_conversations"]), row["value"], row["ci_low"], row["ci_high"])
                    for row in of_judge.filter(recipe=recipe).iter_rows(named=True)
                ],
            )
            for recipe in plotted
        ]
        if series:
            plot = category_points(labels, series, f"{METRIC_WORDS[metric]} by history", axis="earlier conversations", limits=(0, 1.02))
            body.append(figure(plot, METRIC_WORDS[metric], f"judge {judge}; 95 % intervals", cls="single"))
            body.append(legend((recipe, data.mark(recipe).css, "hollow" if data.mark(recipe).is_hollow else "") for recipe in plotted))
        cells = {(row["recipe"], row["earlier_conversations"]): row for row in of_judge.iter_rows(named=True)}
        lines = [[recipe, *(_cell(cells.get((recipe, label))) for label in labels)] for recipe in names]
        body.append(table(["recipe", *labels], lines, f"{METRIC_WORDS[metric]} by earlier conversations; judge {judge}"))
    return Section("history", title, join(body))


def reasoning(data: ReportData) -> Section:
    """Accuracy on the items with known answers."""
    title = "Reasoning"
    rows = [row for row in _scores(data) if row["metric"] == Metric.ACCURACY]
    if not rows:
        return Section("reasoning", title, missing("accuracy on problems with known answers", "scores"))
    lines = [
        [row["recipe"], row["benchmark"], percent(row["value"]), bracket(row["ci_low"], row["ci_high"]), f"{row['n']:,}", row["judge"]]
        for row in rows
    ]
    columns = ["recipe", "benchmark", "right answers", "95 % interval", "n", "judge"]
    intro = paragraph("Learning what users like must not cost what the model can do: problems with a known answer, checked by rule.")
    return Section("reasoning", title, join([intro, table(columns, lines, text_columns=(1, 5))]))


def samples(data: ReportData) -> Section | None:
    """A few held-out requests with the replies side by side; ``None`` unless samples are to be shown."""
    if not data.show_samples:
        return None
    title = "Side by side"
    prompts = data.table("eval_prompts", ["prompt_id", "benchmark", "prompt", "persona"])
    responses = data.table("responses", ["recipe", "prompt_id", "reply", "error"])
    if prompts is None or responses is None:
        return Section("samples", title, missing("replies", "eval_prompts", "responses"))
    names = data.leading(responses["recipe"])
    items = prompts.filter(benchmark=Benchmark.USER_EVAL.value).sort("prompt_id")
    chosen = items.gather([len(items) * position // SAMPLES for position in range(SAMPLES)] if len(items) > SAMPLES else range(len(items)))
    replies = {(row["recipe"], row["prompt_id"]): row for row in responses.iter_rows(named=True)}
    verdicts = _verdicts(data)
    intro = paragraph(
        f"{len(chosen)} held-out requests, evenly spaced over all {len(items):,} in the order of their ids, not chosen by outcome. "
        "All text here is simulated."
    )
    shown = []
    for item in chosen.iter_rows(named=True):
        keys = [(recipe, item["prompt_id"]) for recipe in names]
        shown.append(_sample(data, item, [(key[0], replies.get(key), verdicts.get(key)) for key in keys]))
    return Section("samples", title, join([intro, *shown]))


def _scores(data: ReportData) -> list[dict[str, Any]]:
    found = data.table("scores", list(SCORES.columns))
    rows = [] if found is None else found.filter(pl.col("value").is_not_null()).rows(named=True)
    order = data.ranked(row["recipe"] for row in rows)
    return sorted(rows, key=lambda row: (order.index(row["recipe"]), row["benchmark"], row["metric"], row["judge"]))


def _primary_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the metric the page leads with, of one judge: all preferences met where a judge can tell, else the win rate."""
    for metric in _PRIMARY:
        found = [row for row in rows if row["metric"] == metric and row["benchmark"] == Benchmark.USER_EVAL]
        if found:
            judge = min(row["judge"] for row in found)
            return [row for row in found if row["judge"] == judge]
    return []


def _verdict_in_words(rows: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]]) -> str:
    """The page's first sentence: what each trained recipe reaches and how far that is from the base."""
    gains = {(row["recipe"], row["judge"]): row for row in rows if row["metric"] == Metric.ALL_PREFERENCES_MET_MINUS_BASE}
    parts = []
    for row in shown:
        if row["recipe"] == BASE:
            continue
        if row["metric"] == Metric.WIN_RATE:
            parts.append(
                f"`{row['recipe']}` wins {percent(row['value'])} {bracket(row['ci_low'], row['ci_high'])} of comparisons with the base"
            )
        else:
            gain = gains.get((row["recipe"], row["judge"]))
            over = f", {points(gain['value'])} {bracket(gain['ci_low'], gain['ci_high'])} against the base" if gain else ""
            parts.append(f"`{row['recipe']}` meets every preference in {percent(row['value'])} of its replies{over}")
    return f"On requests of users that training never saw, {'; '.join(parts)}." if parts else "No trained recipe has been scored yet."


def _card(data: ReportData, row: dict[str, Any], metric: Metric) -> Html:
    about = f"{METRIC_WORDS[metric].lower()}, {bracket(row['ci_low'], row['ci_high'])}, n = {row['n']:,}"
    return element(
        "div",
        element("div", row["recipe"], cls="name"),
        element("div", percent(row["value"]), cls="value"),
        element("div", about, cls="about"),
        cls="card",
        style=f"--tone:{data.mark(row['recipe']).css}",
    )


def _forest(data: ReportData, metric: Metric, judge: str, rows: Sequence[dict[str, Any]]) -> Html:
    lines = [
        Row(
            row["recipe"],
            row["value"],
            row["ci_low"],
            row["ci_high"],
            f"{percent(row['value'])} {bracket(row['ci_low'], row['ci_high'])}",
            data.mark(row["recipe"]),
        )
        for row in rows
    ]
    highest = max(max(line.value, line.high or 0.0) for line in lines)
    limits = (0.0, 1.0) if metric not in _LOWER_IS_BETTER else (0.0, min(1.0, max(0.05, highest * 1.08)))
    counts = sorted({row["n"] for row in rows})
    n = f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"
    about = f"{_METRIC_NOTES[metric]}; {n}, judge {judge}"
    return figure(forest(lines, f"{METRIC_WORDS[metric]} by recipe", limits=limits), METRIC_WORDS[metric], about)


def _difference_forest(data: ReportData, rows: Sequence[dict[str, Any]], name: str) -> Html:
    lines = [
        Row(
            f"{row['left']} \u2212 {row['right'].removeprefix(row['left'] + '_')}",
            row["difference"],
            row["ci_low"],
            row["ci_high"],
            f"{points(row['difference']).removesuffix(' points')} {bracket(row['ci_low'], row['ci_high'])}",
            data.mark(row["left"]),
        )
        for row in rows
    ]
    return forest(lines, name, zero=True, unit="")


def _other_differences(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Html:
    cells = {(row["left"], row["right"], row["metric"]): row for row in rows}
    lines = []
    for left, right in dict.fromkeys((row["left"], row["right"]) for row in rows):
        line: list[object] = [f"{left} minus {right}"]
        for metric in metrics:
            row = cells.get((left, right, metric.value))
            if row is None:
                line.append("\u2013")
                continue
            tone, word = _in_words(row, metric)
            about = (bracket(row["ci_low"], row["ci_high"]), f"n = {row['n']:,}")
            line.append(join([points(row["difference"]), *(element("small", part) for part in about), element("small", word, cls=tone)]))
        lines.append(line)
    return table(["comparison", *(METRIC_WORDS[metric] for metric in metrics)], lines, "The same comparisons on the other measures.")


def _score_table(data: ReportData, rows: Sequence[dict[str, Any]]) -> Html:
    present = [metric for metric in METRIC_WORDS if any(row["metric"] == metric for row in rows)]
    cells = {(row["recipe"], row["metric"], row["judge"]): row for row in rows}
    columns = [(metric, judge) for metric in present for judge in sorted({row["judge"] for row in rows if row["metric"] == metric})]
    judges = sorted({row["judge"] for row in rows} - {NO_JUDGE})
    heads = [METRIC_WORDS[metric] + (f" ({judge})" if len(judges) > 1 and judge != NO_JUDGE else "") for metric, judge in columns]
    caption = f"All numbers with 95 % intervals; n counts requests, not verdicts. Judge: {', '.join(judges)}."
    names = data.ranked(row["recipe"] for row in rows)
    lines = [
        [
            _recipe_name(data, recipe),
            *(_cell(cells.get((recipe, metric.value, judge))) for metric, judge in columns),
        ]
        for recipe in names
    ]
    return table(["recipe", *heads], lines, caption)


def _recipe_name(data: ReportData, recipe: str) -> Html:
    return join([recipe, element("small", data.recipes[recipe].description)]) if recipe in data.recipes else escape(recipe)


def _judge_remarks(data: ReportData, rows: Sequence[dict[str, Any]]) -> Html:
    judgements = data.table("judgements", ["verdict", "recipe", "opponent"])
    remarks = []
    if judgements is not None:
        illegible = count_illegible(judgements)
        remarks.append(f"{illegible:,} of {len(judgements):,} verdicts were illegible and count for nothing.")
    if any(row["metric"] == Metric.POSITION_BIAS for row in rows):
        remarks.append("A verdict that follows the order names the same position both ways round, whoever wrote the reply there.")
    return paragraph(" ".join(remarks), cls="quiet") if remarks else Html("")


def _in_words(row: dict[str, Any], metric: Metric) -> tuple[str, str]:
    """(tone, verdict) of a difference, from its interval alone."""
    low, high = row["ci_low"], row["ci_high"]
    if low is None or high is None:
        return "open", "no variation, so no interval"
    if low <= 0 <= high:
        return "open", "not told apart"
    return ("good", "better") if (low > 0) != (metric in _LOWER_IS_BETTER) else ("bad", "worse")


def _sentence(row: dict[str, Any], metric: Metric) -> Html:
    tone, word = _in_words(row, metric)
    effect = row["minimum_detectable_effect"]
    limit = f" (detectable: {100 * effect:.1f} points)" if effect else ""
    difference = f"{points(row['difference'])} {bracket(row['ci_low'], row['ci_high'])}"
    return join(
        [
            inline(f"`{row['left']}` minus `{row['right']}`: "),
            element("b", difference),
            f", n = {row['n']:,}" + (f" from {row['users']:,} users" if row["benchmark"] == Benchmark.USER_EVAL else "") + ": ",
            element("span", word, cls=tone),
            limit + ".",
        ]
    )


def _cell(row: dict[str, Any] | None) -> Html:
    return escape("\u2013") if row is None else share_cell(row["value"], row["ci_low"], row["ci_high"], row["n"])


def _verdicts(data: ReportData) -> dict[tuple[str, str], str]:
    judgements = data.table("judgements", ["recipe", "prompt_id", "judge", "order", "preferences_met", "is_malformed"])
    if judgements is None:
        return {}
    words = {}
    for row in judgements.sort("recipe", "prompt_id", "judge", "order", descending=True).iter_rows(named=True):
        met = row["preferences_met"]
        parts = ["malformed"] if row["is_malformed"] else []
        parts += [f"meets {percent(met, 0)} of the preferences"] if met is not None else []
        words[row["recipe"], row["prompt_id"]] = ", ".join(parts)
    return words


def _sample(data: ReportData, item: dict[str, Any], replies: Sequence[tuple[str, dict[str, Any] | None, str | None]]) -> Html:
    request = "\n\n".join(
        message["content"] if message["role"] == "user" else f"{message['role']}: {message['content']}" for message in item["prompt"]
    )
    shown = []
    for recipe, row, verdict in replies:
        reply = "no reply" if row is None else row["reply"] if row["reply"] is not None else f"error: {row['error']}"
        shown.append(
            element(
                "div",
                element("h4", recipe),
                paragraph(verdict or "not judged", cls="verdict"),
                paragraph(reply, cls="text"),
                cls="reply",
                style=f"--tone:{data.mark(recipe).css}",
            )
        )
    persona = item["persona"] or "Nothing is known about this user yet."
    return element(
        "article",
        paragraph(request, cls="request"),
        paragraph(persona, cls="persona"),
        element("div", *shown, cls="replies"),
        cls="sample",
    )
