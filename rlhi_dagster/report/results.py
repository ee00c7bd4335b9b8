"""The report's results: scores, comparisons, cold start, reasoning, samples.

What belongs here: what sections about replies and verdicts show; ``None`` where a table for it is missing. What does not: how the data and
checkpoints came to be (``process``), text and markup (``page.html``) and the statistics themselves (``evaluation.scores``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.tables import BENCHMARK_SCORES, JUDGE_QUALITY, JUDGEMENTS, SCORES
from rlhi_dagster.evaluation import COLD_START, Benchmark, Metric
from rlhi_dagster.evaluation.accuracy import OF_THE_PAPER, PAPER_AVERAGE, missing_of_the_paper
from rlhi_dagster.evaluation.ceiling import CEILING
from rlhi_dagster.evaluation.headline import primary_rows
from rlhi_dagster.evaluation.judge_quality import NOBODY
from rlhi_dagster.evaluation.judges import count_illegible
from rlhi_dagster.evaluation.power import SIGNIFICANT
from rlhi_dagster.evaluation.scores import HISTORY_BUCKETS, HISTORY_SCHEMA, NO_JUDGE, by_earlier_conversations, comparisons
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.words import NONE, Cell, Figure, Table, bracket, figure, number, percent, points, share
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import BASE

SAMPLES = 6
PAPER = {
    (Benchmark.ALPACA_EVAL.value, Metric.LENGTH_CONTROLLED_WIN_RATE.value): "77.9 % (rewards); its judge no longer exists: not comparable",
    (PAPER_AVERAGE, Metric.ACCURACY.value): "26.5 % before, 31.8 % after; comparable for the same policy and sampling",
}
"""What the paper reports (arXiv 2509.25137), and whether a number of ours can be compared with it."""

METRIC_WORDS = {
    Metric.ALL_PREFERENCES_MET: "All preferences met",
    Metric.PREFERENCES_MET: "Preferences met",
    Metric.WIN_RATE: "Win rate against base",
    Metric.LENGTH_CONTROLLED_WIN_RATE: "Win rate at equal length",
    Metric.WIN_RATE_PERSONALIZATION: "Win rate: suits the user",
    Metric.WIN_RATE_INSTRUCTION_FOLLOWING: "Win rate: does what is asked",
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
_LOWER_IS_BETTER = (Metric.MALFORMED,)
THE_CEILING = "the ceiling"
"""Stands after the recipes in figures and tables."""
_CEILING_MARK = plots.Mark("--ink", is_hollow=True, symbol="D")

Rows = Sequence[Mapping[str, Any]]


def lead(data: ReportData) -> dict[str, Any] | None:
    """The top of the page: the result in a sentence per method, and the numbers behind it as cards."""
    rows = _scores(data)
    by_recipe = {row["recipe"]: row for row in primary_rows(rows)}
    if not by_recipe:
        return None
    shown = [by_recipe[recipe] for recipe in data.leading(by_recipe)]
    cards = [
        {
            "name": row["recipe"],
            "value": percent(row["value"]),
            "about": f"{METRIC_WORDS[row['metric']].lower()}, {bracket(row['ci_low'], row['ci_high'])}, n = {row['n']:,}",
            "colour": data.mark(row["recipe"]).css,
        }
        for row in shown
    ]
    return {"sentence": _verdict_in_words(rows, shown), "cards": cards}


def results(data: ReportData) -> dict[str, Any] | None:
    """Every recipe on the held-out users' requests: forest plots and the table behind them."""
    rows = [row for row in _with_ceiling(_scores(data)) if row["benchmark"] == Benchmark.USER_EVAL]
    if not rows:
        return None
    of = {(metric, judge): [row for row in rows if (row["metric"], row["judge"]) == (metric, judge)] for metric, judge in _columns(rows)}
    figures = [_forest(data, metric, judge, of[metric, judge]) for metric, judge in of if metric in _METRIC_NOTES]
    has_ceiling = any(row["recipe"] == THE_CEILING for row in rows)
    return {"figures": figures, "table": _score_table(data, rows), "remarks": _judge_remarks(data, rows), "has_ceiling": has_ceiling}


def differences(data: ReportData) -> list[dict[str, Any]] | None:
    """The claims as paired differences in plain words, by benchmark and judge."""
    judgements = data.table("judgements", list(JUDGEMENTS.columns))
    found = None if judgements is None else comparisons(judgements, recipes.comparisons(data.recipes))
    if found is None or found.is_empty():
        return None
    groups = []
    for (benchmark, judge), group in found.group_by("benchmark", "judge", maintain_order=True):
        metrics = [Metric(name) for name in group["metric"].unique(maintain_order=True)]
        rows = [row | dict(zip(("tone", "word"), _in_words(row), strict=True)) for row in group.iter_rows(named=True)]
        first, name = [row for row in rows if row["metric"] == metrics[0]], METRIC_WORDS[metrics[0]]
        groups.append(
            {
                "title": f"{name} ({benchmark}, judge {judge})",
                "figure": figure(_difference_forest(data, first), name, "Differences in percentage points"),
                "rows": first,
                "of_users": benchmark == Benchmark.USER_EVAL,
                "others": _other_differences(rows, metrics[1:]) if metrics[1:] else None,
            }
        )
    return groups


def cold_start(data: ReportData) -> dict[str, Any] | None:
    """The primary metric by number of the user's earlier conversations."""
    primary = primary_rows(_scores(data))
    metric = Metric(primary[0]["metric"]) if primary else Metric.ALL_PREFERENCES_MET
    judgements = data.table("judgements", list(JUDGEMENTS.columns))
    prompts = data.table("eval_prompts", ["prompt_id", "benchmark", "earlier_conversations"])
    curve = None if judgements is None or prompts is None else by_earlier_conversations(judgements, prompts, metric)
    if curve is None or curve.is_empty():
        return None
    curve = pl.concat([curve, _ceiling_of_history(data, metric)])
    known, words = set(curve["earlier_conversations"]), METRIC_WORDS[metric]
    labels = [label for label in (*map(str, COLD_START), *(label for label, _, _ in HISTORY_BUCKETS[2:])) if label in known]
    of_judges = []
    for judge in curve["judge"].unique().sort():
        of_judge = curve.filter(judge=judge)
        names = data.ranked(of_judge["recipe"])
        looks = {recipe: _mark(data, recipe) for recipe in names if not data.is_control(recipe)}
        cells = {(row["recipe"], row["earlier_conversations"]): row for row in of_judge.iter_rows(named=True)}
        series = [
            plots.Series(
                mark,
                [
                    (place, row["value"], row["ci_low"], row["ci_high"])
                    for place, label in enumerate(labels)
                    if (row := cells.get((recipe, label)))
                ],
            )
            for recipe, mark in looks.items()
        ]
        drawn = plots.category_points(labels, series, axis="earlier conversations", limits=(0, 1.02))
        lines = [[recipe, *(share(cells.get((recipe, label))) for label in labels)] for recipe in names]
        of_judges.append(
            {
                "figure": figure(drawn, f"{words} by history", words, f"judge {judge}; 95 % intervals", looks) if series else None,
                "table": Table(["recipe", *labels], lines, f"{words} by earlier conversations; judge {judge}"),
            }
        )
    is_cut = prompts is not None and Benchmark.AFTER_0.value in set(prompts["benchmark"])
    return {"metric": words, "judges": of_judges, "is_cut": is_cut}


def other_personas(data: ReportData) -> Table | None:
    """The primary metric under the user's own, another user's and no persona, on follow-ups, and the part of the gain that is personal."""
    rows = _with_ceiling(_scores(data))
    primary = primary_rows(rows)
    if not any(row["benchmark"] == Benchmark.USER_EVAL_SHUFFLED for row in rows):
        return None
    metric, judge = primary[0]["metric"], primary[0]["judge"]
    cells = {(row["recipe"], row["benchmark"], row["metric"]): row for row in rows if row["judge"] == judge}
    asked = [Benchmark.USER_EVAL, Benchmark.USER_EVAL_FOLLOW_UPS, Benchmark.USER_EVAL_SHUFFLED, Benchmark.USER_EVAL_EMPTY]
    parts = [Metric.PERSONAL_PREFERENCES_MET, Metric.PERSONAL_WIN_RATE]
    lines = [
        [recipe, *(share(cells.get((recipe, name, metric))) for name in asked)]
        + [_personal_part(cells.get((recipe, Benchmark.USER_EVAL, part))) for part in parts]
        for recipe in data.ranked(row["recipe"] for row in primary)
    ]
    heads = ["first requests", "follow-ups", "another's persona", "no persona", "personal part: preferences met", "personal part: wins"]
    return Table(["recipe", *heads], lines, f"{METRIC_WORDS[Metric(metric)]}; judge {judge}.")


def _personal_part(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell(NONE)
    remarks = [(row["remark"], "open")] if row["remark"] else []
    return Cell(points(row["value"]), [(bracket(row["ci_low"], row["ci_high"]), ""), (f"n = {row['n']:,}", ""), *remarks])


def judges(data: ReportData) -> Table | None:
    """What judges go by, whether they agree, and whether people agree with them."""
    found = data.table("judge_quality", list(JUDGE_QUALITY.columns))
    if found is None:
        return None
    lines = [
        [row["judge"] if row["other_judge"] == NOBODY else f"{row['judge']} and {row['other_judge']}"]
        + [row[name].replace("_", " ") for name in ("criterion", "items", "figure")]
        + [number(row["value"], 2), bracket(row["ci_low"], row["ci_high"], 1.0, 2), f"{row['n']:,}", row["remark"] or ""]
        for row in found.sort("judge", "other_judge", "items", "criterion", "figure").iter_rows(named=True)
    ]
    return Table(["judge", "asked", "items", "figure", "value", "95 % interval", "n", "remark"], lines, text_columns=(1, 2, 3, 7))


def reasoning(data: ReportData) -> Table | None:
    """Accuracy on the items with known answers."""
    lines = [
        [row["recipe"], row["benchmark"], percent(row["value"]), bracket(row["ci_low"], row["ci_high"]), f"{row['n']:,}", row["judge"]]
        for row in _scores(data)
        if row["metric"] == Metric.ACCURACY
    ]
    columns = ["recipe", "benchmark", "right answers", "95 % interval", "n", "judge"]
    return Table(columns, lines, text_columns=(1, 5)) if lines else None


def benchmarks(data: ReportData) -> Table | None:
    """Scores on public benchmarks, with what the paper reports beside them."""
    found = data.table("benchmark_scores", list(BENCHMARK_SCORES.columns))
    if found is None:
        return None
    rows = found.filter(pl.col("value").is_not_null()).rows(named=True)
    order = data.ranked(row["recipe"] for row in rows)
    lines = [
        [
            *(row["recipe"], row["benchmark"], row["metric"].replace("_", " ")),
            f"{row['value']:.2f}" if row["metric"] == Metric.RATING else percent(row["value"]),
            NONE if row["metric"] == Metric.RATING else bracket(row["ci_low"], row["ci_high"]),
            *(f"{row['n']:,}", row["judge"], PAPER.get((row["benchmark"], row["metric"]), NONE), row["remark"] or ""),
        ]
        for row in sorted(rows, key=lambda row: (row["benchmark"], row["metric"], row["judge"], order.index(row["recipe"])))
    ]
    columns = ["recipe", "benchmark", "metric", "value", "95 % interval", "n", "judge", "the paper", "remark"]
    absent = missing_of_the_paper(row["benchmark"] for row in rows if row["metric"] == Metric.ACCURACY)
    why = f"The paper's average over four reasoning benchmarks has no row: {', '.join(absent)} not run." if absent else ""
    return Table(columns, lines, why if len(absent) < len(OF_THE_PAPER) else "", text_columns=(1, 2, 6, 7, 8))


def samples(data: ReportData) -> dict[str, Any] | None:
    """A few held-out requests with the replies side by side."""
    prompts = data.table("eval_prompts", ["prompt_id", "benchmark", "prompt", "persona"])
    responses = data.table("responses", ["recipe", "prompt_id", "reply", "error"])
    if not data.show_samples or prompts is None or responses is None:
        return None
    items = prompts.filter(benchmark=Benchmark.USER_EVAL.value).sort("prompt_id")
    chosen = items.gather([len(items) * position // SAMPLES for position in range(SAMPLES)] if len(items) > SAMPLES else range(len(items)))
    replies = {(row["recipe"], row["prompt_id"]): row for row in responses.iter_rows(named=True)}
    verdicts, names = _verdicts(data), data.leading(responses["recipe"])
    shown = [
        {
            "request": "\n\n".join(("" if turn["role"] == "user" else f"{turn['role']}: ") + turn["content"] for turn in item["prompt"]),
            "persona": item["persona"] or "Nothing is known about this user yet.",
            "replies": [
                {
                    "recipe": recipe,
                    "colour": data.mark(recipe).css,
                    "text": _reply(replies.get((recipe, item["prompt_id"]))),
                    "verdict": verdicts.get((recipe, item["prompt_id"])) or "not judged",
                }
                for recipe in names
            ],
        }
        for item in chosen.iter_rows(named=True)
    ]
    return {"items": shown, "of": len(items)}


def _scores(data: ReportData) -> list[dict[str, Any]]:
    found = data.table("scores", list(SCORES.columns))
    rows = [] if found is None else found.filter(pl.col("value").is_not_null()).rows(named=True)
    order = data.ranked(row["recipe"] for row in rows)
    return sorted(rows, key=lambda row: (order.index(row["recipe"]), row["benchmark"], row["metric"], row["judge"]))


def _with_ceiling(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows, at their end those of what could be reached, as a recipe's by itself."""
    of_ceiling = {"recipe": THE_CEILING, "metric": Metric.ALL_PREFERENCES_MET.value}
    ceilings = [{**row, **of_ceiling} for row in rows if row["metric"] == Metric.ALL_PREFERENCES_MET_CEILING]
    return [*(row for row in rows if row["metric"] != Metric.ALL_PREFERENCES_MET_CEILING), *ceilings]


def _ceiling_of_history(data: ReportData, metric: Metric) -> pl.DataFrame:
    """What could be reached by number of known conversations, as `by_earlier_conversations` has it of recipes."""
    strata = {benchmark.value: str(count) for count, benchmark in COLD_START.items()}
    rows = [
        {**row, "recipe": THE_CEILING, "metric": metric.value, "earlier_conversations": strata[row["benchmark"]]}
        for row in _scores(data)
        if row["metric"] == f"{metric}_ceiling" and row["benchmark"] in strata
    ]
    return pl.DataFrame([{name: row[name] for name in HISTORY_SCHEMA} for row in rows], schema=HISTORY_SCHEMA)


def _mark(data: ReportData, recipe: str) -> plots.Mark:
    return _CEILING_MARK if recipe == THE_CEILING else data.mark(recipe)


def _columns(rows: Rows) -> list[tuple[Metric, str]]:
    """Metrics and judges that there are, as the page shows them."""
    found = {(Metric(row["metric"]), row["judge"]) for row in rows if row["metric"] in METRIC_WORDS}
    return sorted(found, key=lambda each: (list(METRIC_WORDS).index(each[0]), each[1]))


def _verdict_in_words(rows: Rows, shown: Rows) -> str:
    """The page's first sentence: what each trained recipe reaches and how far that is from the base."""
    gained = (Metric.ALL_PREFERENCES_MET_MINUS_BASE, Benchmark.USER_EVAL)
    gains = {(row["recipe"], row["judge"]): row for row in rows if (row["metric"], row["benchmark"]) == gained}
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
    if not parts:
        return "No trained recipe has been scored yet."
    return f"On requests of users that training never saw, {'; '.join(parts)}.{_ceiling_in_words(rows)}"


def _ceiling_in_words(rows: Rows) -> str:
    """What could be reached, for whoever reads what was; nothing where nobody knows."""
    of = {
        row["judge"]: row for row in rows if (row["metric"], row["benchmark"]) == (Metric.ALL_PREFERENCES_MET_CEILING, Benchmark.USER_EVAL)
    }
    return "".join(
        f" A policy that {CEILING} would meet every preference in {percent(row['value'])} {bracket(row['ci_low'], row['ci_high'])} of them."
        for _, row in sorted(of.items())
    )


def _forest(data: ReportData, metric: Metric, judge: str, rows: Rows) -> Figure:
    lines = [_line(data, row["recipe"], row["recipe"], row, percent(row["value"])) for row in rows]
    highest = max(max(line.value, line.high or 0.0) for line in lines)
    limits = (0.0, 1.0) if metric not in _LOWER_IS_BETTER else (0.0, min(1.0, max(0.05, highest * 1.08)))
    counts = sorted({row["n"] for row in rows})
    n = f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"
    words = METRIC_WORDS[metric]
    return figure(plots.forest(lines, limits=limits), f"{words} by recipe", words, f"{_METRIC_NOTES[metric]}; {n}, judge {judge}")


def _difference_forest(data: ReportData, rows: Rows) -> Any:
    lines = [
        _line(
            data,
            row["left"],
            f"{row['left']} \u2212 {row['right'].removeprefix(row['left'] + '_')}",
            {**row, "value": row["difference"]},
            points(row["difference"]).removesuffix(" points"),
        )
        for row in rows
    ]
    return plots.forest(lines, zero=True, unit="")


def _line(data: ReportData, recipe: str, label: str, row: Mapping[str, Any], text: str) -> plots.Row:
    low, high = row["ci_low"], row["ci_high"]
    return plots.Row(label, row["value"], low, high, f"{text} {bracket(low, high)}", _mark(data, recipe))


def _other_differences(rows: Rows, metrics: Sequence[Metric]) -> Table:
    cells = {(row["left"], row["right"], row["metric"]): row for row in rows}

    def cell(row: Mapping[str, Any] | None) -> Cell:
        if row is None:
            return Cell(NONE)
        about = (bracket(row["ci_low"], row["ci_high"]), f"n = {row['n']:,}")
        return Cell(points(row["difference"]), [*((part, "") for part in about), (row["word"], row["tone"])])

    sides = dict.fromkeys((row["left"], row["right"]) for row in rows)
    lines = [[f"{left} minus {right}", *(cell(cells.get((left, right, metric.value))) for metric in metrics)] for left, right in sides]
    return Table(["comparison", *(METRIC_WORDS[metric] for metric in metrics)], lines, "The same comparisons on the other measures.")


def _score_table(data: ReportData, rows: Rows) -> Table:
    cells = {(row["recipe"], row["metric"], row["judge"]): row for row in rows}
    columns, judges = _columns(rows), sorted({row["judge"] for row in rows} - {NO_JUDGE})
    heads = [METRIC_WORDS[metric] + (f" ({judge})" if len(judges) > 1 and judge != NO_JUDGE else "") for metric, judge in columns]
    lines = [
        [
            Cell(recipe, [(_about(data, recipe), "")] if _about(data, recipe) else []),
            *(share(cells.get((recipe, metric.value, judge))) for metric, judge in columns),
        ]
        for recipe in data.ranked(row["recipe"] for row in rows)
    ]
    caption = f"All numbers with 95 % intervals; n counts requests, not verdicts. Judge: {', '.join(judges)}."
    return Table(["recipe", *heads], lines, caption)


def _about(data: ReportData, recipe: str) -> str:
    if recipe == THE_CEILING:
        return f"No recipe: a policy that {CEILING}."
    return data.recipes[recipe].description if recipe in data.recipes else ""


def _judge_remarks(data: ReportData, rows: Rows) -> str:
    judgements = data.table("judgements", ["verdict", "recipe", "opponent"])
    remarks = []
    if judgements is not None:
        remarks.append(f"{count_illegible(judgements):,} of {len(judgements):,} verdicts were illegible and count for nothing.")
    if any(row["metric"] == Metric.POSITION_BIAS for row in rows):
        remarks.append("A verdict that follows the order names the same position both ways round, whoever wrote the reply there.")
    return " ".join(remarks)


def _in_words(row: Mapping[str, Any]) -> tuple[str, str]:
    """(tone, verdict) of a difference: from its p-value after Holm's correction, and from what is remarked on it."""
    if row["remark"]:
        return "open", row["remark"]
    if row["p_holm"] is None or row["p_holm"] >= SIGNIFICANT:
        return "open", "not told apart" + (" among so many claims" if row["p_value"] is not None and row["p_value"] < SIGNIFICANT else "")
    return ("good", "better") if (row["difference"] > 0) != (row["metric"] in _LOWER_IS_BETTER) else ("bad", "worse")


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


def _reply(row: Mapping[str, Any] | None) -> str:
    return "no reply" if row is None else row["reply"] if row["reply"] is not None else f"error: {row['error']}"
