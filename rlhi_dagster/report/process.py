"""The report's account of how it came about: pairs, rewards, training.

What belongs here: what sections about what was made of the logs show; ``None`` where a table for it is missing. What does not: the logs
(``logs``), replies and verdicts (``results``), text and markup (``page.html``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.reward_order import reward_order
from rlhi_dagster.report.data import Frame, ReportData
from rlhi_dagster.report.words import NONE, Cell, Figure, Table, bracket, figure, minus, number, percent, share
from rlhi_dagster.training.curves import curves, ends, final_numbers, recorded

REATTEMPT = "reattempt_with_feedback"
_PANELS = {"loss": "loss", "margin": "reward margin", "logp_chosen": "log-probability", "kl": "KL to the start"}
_COUNTED = {
    "feedback_labels": "count of follow-ups",
    "rewrites": "count of rewrites",
    "rewrite_pairs": "count of pairs of a rewrite and its original",
    "preference_pairs": "count of pairs that recipes draw from",
}
"""Of a table what is missing without it."""
_CONDITIONS = {"none": "own against none", "shuffled": "own against shuffled"}


def pairs(data: ReportData) -> dict[str, Any]:
    """From follow-ups to the pairs that were trained on, and why the others fell away."""
    guided = pl.col("strategy") == Strategy.FEEDBACK.value
    applies = guided & pl.col("follow_up_applies").fill_null(True)
    used = (pl.col("source") == Source.REWRITES.value) & pl.col("is_kept")
    of_table: dict[str, tuple[Frame | None, dict[str, pl.Expr]]] = {
        "feedback_labels": (
            data.feedback_labels,
            {"follow-ups": pl.lit(True), "re-attempts with feedback": pl.col("label") == REATTEMPT},
        ),
        "rewrites": (
            data.rewrites,
            {
                "to replies to training users": guided,
                "feedback fits the reply": applies,
                "rewritten": applies & pl.col("rewrite").is_not_null(),
            },
        ),
        "rewrite_pairs": (data.rewrite_pairs, {"pairs kept": guided & pl.col("is_kept")}),
        "preference_pairs": (data.preference_pairs, {"pairs that recipes draw from": used}),
    }
    steps = {
        label: int(frame.lazy().filter(keep).select(pl.len()).collect().item())
        for frame, kept in of_table.values()
        if frame is not None
        for label, keep in kept.items()
    }
    drawn = [
        (label, count, f"{count:,}" + (f" ({percent(count / before, 0)})" if before else ""))
        for (label, count), before in zip(steps.items(), [0, *steps.values()], strict=False)
    ]
    name = "Counts from follow-ups to used pairs"
    return {
        "figure": figure(plots.bars(drawn), name, "From follow-ups to pairs") if drawn else None,
        "gaps": [(_COUNTED[asset], asset) for asset, (frame, _) in of_table.items() if frame is None],
        "dropped": _dropped(data),
        "used": _used(data),
    }


def rewards(data: ReportData) -> Table | None:
    """Whether the reward model's order depends on whose persona it sees."""
    found = data.table("candidate_rewards", ["candidate_id", "condition", "turn_id", "persona_user_id", "reward", "call_id"])
    order = None if found is None else reward_order(found)
    if order is None or order.is_empty():
        return None
    cells = {(row["condition"], row["quantity"]): row for row in order.iter_rows(named=True)}
    lines = []
    for condition, words in _CONDITIONS.items():
        best, worst, rank = (cells.get((condition, name)) for name in ("best_changes", "worst_changes", "spearman"))
        if best is not None:
            lines.append([words, share(best), share(worst), _plain(rank), f"{best['users']:,}"])
    columns = ["personas compared", "best candidate changes", "worst candidate changes", "rank correlation (Spearman)", "users"]
    return Table(columns, lines, "n counts requests; correlations are averaged over requests.")


def training(data: ReportData) -> dict[str, Any] | None:
    """What happened while training: curves and a table per recipe."""
    names = data.ranked(data.checkpoints)
    if not names:
        return None
    limits = ends(data.checkpoints, _PANELS)
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
    return {
        "figures": [_curves(data, name, limits) for name in names if recorded(data.checkpoints[name]) & set(_PANELS)],
        "columns": columns,
        "rows": [[name, *_manifest_cells(data.checkpoints[name])] for name in names],
    }


def _curves(data: ReportData, recipe: str, limits: Mapping[str, tuple[float, float]]) -> Figure:
    manifest, colour = data.checkpoints[recipe], data.mark(recipe).colour
    drawn = curves(
        {recipe: manifest}, panels=_PANELS, colours={recipe: colour}, limits=limits, panel=(plots.WIDTH, 1.05), columns=1, size=10
    )
    return figure(drawn, f"Training curves of {recipe}", recipe)


def _dropped(data: ReportData) -> Table | None:
    counts = []
    for name, words in (("rewrite_pairs", "rewrites"), ("reward_pairs", "rewards"), ("explicit_pairs", "what users say outright")):
        found = data.table(name, ["is_kept", "drop_reasons"])
        if found is not None:
            dropped = found.filter(~pl.col("is_kept")).explode("drop_reasons", empty_as_null=True)
            reasons = dropped.group_by(reason=pl.col("drop_reasons").fill_null("no reason given")).len("pairs")
            ordered = reasons.sort("pairs", "reason", descending=[True, False])
            counts += [[words, row["reason"], f"{row['pairs']:,}", percent(row["pairs"] / len(found))] for row in ordered.rows(named=True)]
    columns = ["pairs from", "reason", "dropped", "of all"]
    return Table(columns, counts, "A pair with several reasons counts under each.", text_columns=(1,)) if counts else None


def _used(data: ReportData) -> Table | None:
    found = data.table("preference_pairs", ["source", "split", "user_id", "persona", "is_kept"])
    if found is None:
        return None
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
    return Table(["source", "training pairs", "validation pairs", "users", "with a persona"], lines)


def _plain(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell(NONE)
    return Cell(number(row["value"], 2), [(f"{bracket(row['ci_low'], row['ci_high'], 1, 2)}, n = {row['n']:,}", "")])


def _manifest_cells(manifest: Mapping[str, Any]) -> list[Cell | str]:
    steps = manifest.get("steps") or []
    losses = [step["loss"] for step in steps if step.get("loss") is not None]
    chosen = [step["logps/chosen"] for step in steps if step.get("logps/chosen") is not None]
    moved = chosen[-1] - chosen[0] if chosen else 0.0
    pairs_used, seconds, final = manifest.get("pairs"), manifest.get("seconds"), final_numbers(manifest)
    kept, last = manifest.get("chosen", {}).get("step"), manifest.get("chosen", {}).get("of") or (steps[-1]["step"] if steps else None)
    if "why" in manifest:
        return [Cell(manifest["method"], [(manifest["why"], "")]), *[NONE] * 7]
    return [
        manifest.get("method", NONE),
        NONE if pairs_used is None else f"{(manifest.get('earlier_pairs') or 0) + pairs_used:,}",
        f"{kept:,} of {last:,}" if kept else f"{last:,}" if last else NONE,
        number(manifest.get("step0_loss"), 3),
        number(losses[-1] if losses else None, 3),
        Cell(minus(f"{moved:+.1f}"), tone="bad" if moved < 0 else "") if chosen else NONE,
        Cell(number(final["held_out/kl"], 1), [(f"n = {final['held_out/samples']:.0f}", "")]) if "held_out/kl" in final else NONE,
        NONE if seconds is None else f"{seconds:,.0f}",
    ]
