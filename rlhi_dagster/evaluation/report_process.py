"""The report's account of how it came about: pairs, rewards, training, deviations.

What belongs here: sections about what was made of the logs. What does not: the logs (``report_logs``), replies and verdicts
(``report_results``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.evaluation.report_data import Frame, ReportData
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
    minus,
    missing,
    number,
    paragraph,
    percent,
    rate,
    table,
)
from rlhi_dagster.evaluation.report_plots import Mark, bars, curves, padded
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.reward_order import reward_order
from rlhi_dagster.training.curves import final_numbers, held_out_points

REATTEMPT = "reattempt_with_feedback"
_PANELS = {
    "loss": (("loss", False),),
    "reward margin": (("rewards/margins", False),),
    "log-probability": (("logps/chosen", False), ("logps/rejected", True)),
    "KL to the start": (("kl", False),),
}
_MOST_POINTS = 240


def pairs(data: ReportData) -> Section:
    """From follow-ups to the pairs that were trained on, and why the others fell away."""
    steps: list[tuple[str, int]] = []
    gaps: list[Html] = []
    _step(steps, gaps, "follow-ups", data.feedback_labels, "feedback_labels", None)
    _step(steps, gaps, "re-attempts with feedback", data.feedback_labels, None, pl.col("label") == REATTEMPT)
    guided = pl.col("strategy") == Strategy.FEEDBACK.value
    applies = guided & pl.col("follow_up_applies").fill_null(True)
    _step(steps, gaps, "to replies to training users", data.rewrites, "rewrites", guided)
    _step(steps, gaps, "feedback fits the reply", data.rewrites, None, applies)
    _step(steps, gaps, "rewritten", data.rewrites, None, applies & pl.col("rewrite").is_not_null())
    _step(steps, gaps, "pairs kept", data.rewrite_pairs, "rewrite_pairs", guided & pl.col("is_kept"))
    used = (pl.col("source") == Source.REWRITES.value) & pl.col("is_kept")
    _step(steps, gaps, "pairs that recipes draw from", data.preference_pairs, "preference_pairs", used)
    body: list[object] = [
        paragraph(
            "What is left of the users' feedback at each step of the rewrites that have it in view. The share beside a count is of the "
            "step before. Where the profile takes the logged reply as the original, the feedback fits by definition."
        )
    ]
    if steps:
        drawn = [
            (label, count, f"{count:,}" + (f" ({percent(count / before, 0)})" if before else ""), Mark("--s-rewrites"))
            for (label, count), before in zip(steps, [0, *(count for _, count in steps)], strict=False)
        ]
        body.append(figure(bars(drawn, "Counts from follow-ups to used pairs"), "From follow-ups to pairs", cls="single"))
    body += gaps
    body += [_dropped(data), _used(data)]
    return Section("pairs", "From feedback to pairs", join(body))


def rewards(data: ReportData) -> Section:
    """Whether the reward model's order depends on whose persona it sees."""
    title = "Does the reward know the user?"
    found = data.table("candidate_rewards", ["candidate_id", "condition", "turn_id", "persona_user_id", "reward", "call_id"])
    order = None if found is None else reward_order(found)
    if order is None or order.is_empty():
        return Section("rewards", title, missing("rewards under at least two persona conditions", "candidate_rewards"))
    intro = paragraph(
        "Each request's candidates are ranked with the user's own persona, with another user's (shuffled), and with none. "
        "A reward that is about the user changes its order; one that is merely about quality does not."
    )
    words = {"none": "own against none", "shuffled": "own against shuffled"}
    cells = {(row["condition"], row["quantity"]): row for row in order.iter_rows(named=True)}
    lines = []
    for condition in words:
        best, worst, rank = (cells.get((condition, name)) for name in ("best_changes", "worst_changes", "spearman"))
        if best is None:
            continue
        lines.append([words[condition], rate(best), rate(worst), _plain(rank), f"{best['users']:,}"])
    columns = ["personas compared", "best candidate changes", "worst candidate changes", "rank correlation (Spearman)", "users"]
    return Section("rewards", title, join([intro, table(columns, lines, "n counts requests; correlations are averaged over requests.")]))


def training(data: ReportData) -> Section:
    """What happened while training: curves and a table per recipe."""
    title = "Training"
    recipes = data.ranked(data.checkpoints)
    if not recipes:
        return Section("training", title, missing("checkpoints", "checkpoints"))
    lines, drawn = [], {}
    for recipe in recipes:
        manifest = data.checkpoints[recipe]
        steps = _thinned(manifest.get("steps") or [])
        sampled = [{"step": step, "kl": numbers["kl"]} for step, numbers in held_out_points(manifest) if "kl" in numbers]
        drawn[recipe] = _panels([*steps, *sampled])
        lines.append([recipe, *_manifest_cells(manifest)])
    limits = {
        panel: padded([value for panels in drawn.values() for _, values, _ in panels.get(panel, []) for value in values])
        for panel in _PANELS
    }
    plots = [
        figure(curves(list(panels.items()), data.mark(recipe), f"Training curves of {recipe}", limits), recipe)
        for recipe, panels in drawn.items()
        if panels
    ]
    columns = [
        "recipe",
        "method",
        "pairs",
        "steps",
        "loss at step 0",
        "last loss",
        "log-probability of chosen",
        "KL to the start",
        "seconds",
    ]
    caption = (
        f"Direct preference optimisation starts at ln 2 = {math.log(2):.3f}. The log-probability of chosen is given as its change over "
        "training: a fall means that probability moves away from the very replies that should become likelier. Steps are those of the "
        "snapshot that was kept, of all. The KL to the start is in nats a reply, of replies sampled for held-out users."
    )
    marks = legend((("chosen", "var(--muted)", "bar"), ("rejected", "var(--muted)", "bar hollow"))) if plots else ""
    shown = join([figures(plots, "small"), marks]) if plots else missing("training curves", "checkpoints")
    return Section("training", title, join([shown, table(columns, lines, caption, text_columns=(1,))]))


def deviations(data: ReportData) -> Section:
    """Where this run departs from the paper."""
    title = "Deviations from the paper"
    if not data.deviations:
        return Section("deviations", title, paragraph("None were listed for this run.", cls="missing"))
    return Section("deviations", title, element("ul", *(element("li", inline(text)) for text in data.deviations), cls="plain"))


def _step(steps: list[tuple[str, int]], gaps: list[Html], label: str, frame: Frame | None, asset: str | None, keep: pl.Expr | None) -> None:
    if frame is None:
        if asset is not None:
            gaps.append(missing(f"count of {label}", asset))
        return
    rows = frame.lazy() if keep is None else frame.lazy().filter(keep)
    steps.append((label, int(rows.select(pl.len()).collect().item())))


def _dropped(data: ReportData) -> Html:
    counts = []
    for name, words in (("rewrite_pairs", "rewrites"), ("reward_pairs", "rewards")):
        found = data.table(name, ["is_kept", "drop_reasons"])
        if found is not None:
            dropped = found.filter(~pl.col("is_kept")).explode("drop_reasons", empty_as_null=True)
            reasons = dropped.group_by(reason=pl.col("drop_reasons").fill_null("no reason given")).len("pairs")
            ordered = reasons.sort("pairs", "reason", descending=[True, False])
            counts += [[words, row["reason"], f"{row['pairs']:,}", percent(row["pairs"] / len(found))] for row in ordered.rows(named=True)]
    if not counts:
        return Html("")
    shown = table(
        ["pairs from", "reason", "dropped", "of all"], counts, "A pair with several reasons counts under each.", text_columns=(1,)
    )
    return join([element("h3", "Why pairs were dropped"), shown])


def _used(data: ReportData) -> Html:
    found = data.table("preference_pairs", ["source", "split", "user_id", "persona", "is_kept"])
    if found is None:
        return Html("")
    counts = (
        found.filter("is_kept")
        .group_by("source")
        .agg(
            (pl.col("split") == "train").sum().alias("train"),
            (pl.col("split") != "train").sum().alias("validation"),
            pl.col("user_id").drop_nulls().n_unique().alias("users"),
            (pl.col("persona") != "").mean().alias("with_persona"),
        )
    )
    lines = [
        [row["source"], f"{row['train']:,}", f"{row['validation']:,}", f"{row['users']:,}", percent(row["with_persona"])]
        for row in counts.sort("source").rows(named=True)
    ]
    columns = ["source", "training pairs", "validation pairs", "users", "with a persona"]
    return join([element("h3", "Pairs that recipes draw from"), table(columns, lines)])


def _plain(row: Mapping[str, Any] | None) -> Html:
    if row is None:
        return escape("\u2013")
    about = f"{bracket(row['ci_low'], row['ci_high'], 1, 2)}, n = {row['n']:,}"
    return join([number(row["value"], 2), element("small", about)])


def _thinned(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    every = max(1, math.ceil(len(steps) / _MOST_POINTS))
    return [step for position, step in enumerate(steps) if position % every == 0 or position == len(steps) - 1]


def _panels(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[list[float], list[float], bool]]]:
    panels = {}
    for panel, quantities in _PANELS.items():
        lines = []
        for name, is_dashed in quantities:
            known = [(float(step["step"]), float(step[name])) for step in steps if step.get(name) is not None]
            if known:
                lines.append(([x for x, _ in known], [y for _, y in known], is_dashed))
        if lines:
            panels[panel] = lines
    return panels


def _manifest_cells(manifest: Mapping[str, Any]) -> list[object]:
    steps = manifest.get("steps") or []
    losses = [step["loss"] for step in steps if step.get("loss") is not None]
    chosen = [step["logps/chosen"] for step in steps if step.get("logps/chosen") is not None]
    change: object = "\u2013"
    if chosen:
        moved = chosen[-1] - chosen[0]
        change = element("span", minus(f"{moved:+.1f}"), cls="bad" if moved < 0 else None)
    pairs_used, seconds, final = manifest.get("pairs"), manifest.get("seconds"), final_numbers(manifest)
    kept, last = manifest.get("chosen", {}).get("step"), manifest.get("chosen", {}).get("of") or (steps[-1]["step"] if steps else None)
    earlier = manifest.get("earlier_pairs") or 0
    return [
        manifest.get("method", "\u2013"),
        "\u2013" if pairs_used is None else f"{earlier + pairs_used:,}",
        f"{kept:,} of {last:,}" if kept else f"{last:,}" if last else "\u2013",
        number(manifest.get("step0_loss"), 3),
        number(losses[-1] if losses else None, 3),
        change,
        "\u2013"
        if "held_out/kl" not in final
        else join([number(final["held_out/kl"], 1), element("small", f"n = {final['held_out/samples']:.0f}")]),
        "\u2013" if seconds is None else f"{seconds:,.0f}",
    ]
