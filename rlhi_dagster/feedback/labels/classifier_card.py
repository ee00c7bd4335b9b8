"""What the classifier's card looks like: a table of scores, the reliability diagram, and the cascade's cost against quality.

What belongs here: drawing figures that the card already has. What does not: measuring them (``training``, ``scoring``, ``cascade``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.intervals import wilson
from rlhi_dagster.feedback.labels import cascade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Card = Mapping[str, Any]
METRICS = {
    "macro_f1": "macro-F1",
    "reattempt_f1": "F1, re-attempt with feedback",
    "reattempt_average_precision": "average precision, re-attempt with feedback",
    "accuracy": "accuracy",
}


def table(card: Card) -> pl.DataFrame:
    """Scores in words: a row per labeller and set of rows, a column per metric with its 95 % interval."""
    cross_validation = card["cross_validation"]
    scored = {"classifier, cross-validated": cross_validation}
    scored |= {f"{name.replace('_', ' ')}, same folds": found for name, found in cross_validation["baselines"].items()}
    if test := card.get("test"):
        scored["classifier, rows labelled twice, conversations apart"] = test["conversations_apart"]
        scored["second labeller, the same rows"] = test["second_labeller"]
    rows = [
        {"labeller": who, "n": found["n"], **{shown: _figure(found[name]) for name, shown in METRICS.items()}}
        for who, found in scored.items()
    ]
    majority = {shown: f"{cross_validation['majority_baseline'][name]:.3f}" for name, shown in METRICS.items()}
    rows.insert(1, {"labeller": "most frequent label, as classifier, cross-validated", "n": cross_validation["n"], **majority})
    return pl.DataFrame(rows, schema={"labeller": pl.String, "n": pl.Int64, **dict.fromkeys(METRICS.values(), pl.String)})


@plots.style(7)
def reliability_plot(card: Card) -> Figure:
    """Share of right labels over confidence on conversations that the heads had not seen, with Wilson intervals and the diagonal."""
    found = card["cross_validation"]["calibration"]
    figure, (axes,) = plots.canvas(4.0, 2.8)
    axes.plot([0, 1], [0, 1], color=plots.MUTED, linewidth=1)
    for point in found["reliability"]:
        low, high = wilson(point["accuracy"], point["n"])
        axes.plot([point["confidence"]] * 2, [low, high], color=plots.MAIN, linewidth=1)
        axes.plot(point["confidence"], point["accuracy"], "o", color=plots.MAIN, markersize=3 + 6 * np.sqrt(point["n"] / 300))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"confidence (calibration error {found['error']:.3f}; {found['error_if_perfect']:.3f} if perfect)")
    axes.set_ylabel("share of right labels")
    return figure


@plots.style(7)
def cascade_plot(card: Card, confidence: np.ndarray) -> Figure | None:
    """Quality of the cascade over the share of follow-ups that the model labels.

    Args:
        card: The classifier's card.
        confidence: The classifier's probabilities of its labels on a run's own follow-ups, to draw how often it is expected to be right on
            those that it keeps.

    Returns:
        Measured accuracy and F1 of the rows labelled twice, the second labeller in the model's place, and the run's own line; ``None`` if
        there is neither.
    """
    measured = card.get("test", {}).get("cascade", {}).get("curve", [])
    if not measured and not len(confidence):
        return None
    figure, (axes,) = plots.canvas(4.0, 2.8)
    shares = [point["share_to_model"] for point in measured]
    for name, shown, style in (("accuracy", "accuracy", "-"), ("reattempt_f1", "F1, re-attempt with feedback", "--")):
        if measured:
            axes.plot(shares, [point[name]["value"] for point in measured], style, color=plots.INK, linewidth=1.2, label=shown)
            lows, highs = ([point[name][end] for point in measured] for end in ("ci_low", "ci_high"))
            axes.fill_between(shares, lows, highs, color=plots.INK, alpha=0.08, linewidth=0)
    if len(confidence):
        own = [(share, mean) for _, share, mean in cascade.costs(confidence) if np.isfinite(mean)]
        axes.plot(
            *zip(*own, strict=True), ":", color=plots.MAIN, linewidth=1.5, label="expected accuracy of what the\nclassifier keeps, this run"
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("share of follow-ups that the model labels")
    axes.legend(loc="lower right")
    return figure


def _figure(metric: Mapping[str, float]) -> str:
    return f"{metric['value']:.3f} [{metric['ci_low']:.3f}, {metric['ci_high']:.3f}]"
