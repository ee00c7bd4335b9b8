"""Training curves: what a trainer's numbers are called, and a picture of them for the asset page.

What belongs here: names and drawing. What does not: recording the numbers (``workers/watch.py``) and the report's own picture
(``evaluation/report_plots.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBSERVED = "observed"
"""Key of a worker's message with numbers to show while it works: ``name`` of what is trained, ``line`` in words, and ``numbers``."""
NAMES = {
    "loss": "loss",
    "rewards/margins": "margin",
    "margin": "margin",
    "rewards/accuracies": "accuracy",
    "accuracy": "accuracy",
    "mean_token_accuracy": "token_accuracy",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "entropy": "entropy",
    "kl": "kl",
    "kl_error": "kl_error",
    "samples": "samples",
    "samples_malformed": "samples_malformed",
    "displacement": "displacement",
    "memorisation": "memorisation",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "useful_tokens_per_second": "useful_tokens_per_second",
    "tokens_per_second": "tokens_per_second",
    "memory_gib": "memory_gib",
}
"""What trainers and probes record, and what it is called in the UI, in TensorBoard and in curves, whatever the method."""
PANELS = {
    "loss": "loss (nats)",
    "margin": "reward margin",
    "accuracy": "pair accuracy",
    "token_accuracy": "token accuracy",
    "logp_chosen": "log p(chosen), log p(rejected) dashed",
    "entropy": "entropy (nats a token)",
    "kl": "KL to the start (nats a reply)",
    "samples_malformed": "malformed samples",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s, useful dashed",
    "memory_gib": "memory (GiB)",
}
"""Panels by the quantity that they show, in order."""
_DASHED = {"logp_chosen": "logp_rejected", "tokens_per_second": "useful_tokens_per_second"}
"""A panel's second quantity."""
_Points = Sequence[tuple[int, Mapping[str, float]]]
_POINTS = 40
_COLUMNS = 4


def measured(entry: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a recorded point by their names in ``NAMES``; those that are not finite are left out.

    Args:
        entry: What a trainer recorded.
        prefix: ``eval_`` for a held-out evaluation.
    """
    found = {name: entry[prefix + key] for key, name in NAMES.items() if prefix + key in entry}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def training_points(manifest: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Step and numbers of each training point of an artefact."""
    return [(point["step"], measured(point)) for point in manifest.get("steps", [])]


def held_out_points(manifest: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Step and numbers of each evaluation on held-out users of an artefact; step 0 is the start."""
    return [(point["step"], measured(point, "eval_")) for point in manifest.get("evaluations", [])]


def final_numbers(manifest: Mapping[str, Any]) -> dict[str, float]:
    """The last training point as ``training/<name>`` and the chosen snapshot on held-out users as ``held_out/<name>``, with their steps."""
    found: dict[str, float] = {}
    for step, numbers in training_points(manifest)[-1:]:
        found |= {"training/step": step, **{f"training/{name}": value for name, value in numbers.items()}}
    chosen = manifest.get("chosen", {}).get("step")
    for step, numbers in held_out_points(manifest):
        if step == chosen:
            found |= {"held_out/step": step, **{f"held_out/{name}": value for name, value in numbers.items()}}
    return found


def curves(manifests: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Small multiples over training steps, one colour an artefact; panels that no artefact recorded are left out.

    Lines are training points, dots held-out users, with two standard errors where there is one. A vertical line marks the snapshot that
    was chosen, a horizontal one ln 2, where the loss of DPO starts. Long runs are drawn as means of at most ``_POINTS`` equal spans.
    """
    from matplotlib.figure import Figure

    trained = {name: training_points(manifest) for name, manifest in manifests.items()}
    held_out = {name: held_out_points(manifest) for name, manifest in manifests.items()}
    recorded = {name for points in (*trained.values(), *held_out.values()) for _, numbers in points for name in numbers}
    shown = [key for key in PANELS if key in recorded]
    rows = max(-(-len(shown) // _COLUMNS), 1)
    figure = Figure(figsize=(2.5 * min(max(len(shown), 1), _COLUMNS), 1.75 * rows + 0.25), layout="constrained")
    for position, key in enumerate(shown, 1):
        axes = figure.add_subplot(rows, min(len(shown), _COLUMNS), position)
        for order, (name, manifest) in enumerate(manifests.items()):
            _draw(axes, key, trained[name], held_out[name], f"C{order % 10}", name)
            chosen = manifest.get("chosen", {}).get("step")
            if held_out[name] and chosen is not None:
                axes.axvline(chosen, color=f"C{order % 10}", linewidth=0.7, alpha=0.5)
        if key == "loss" and any(manifest.get("method") == "dpo" for manifest in manifests.values()):
            axes.axhline(math.log(2), color="grey", linewidth=0.7, linestyle=":")
            axes.annotate("ln 2", (1, math.log(2)), xycoords=("axes fraction", "data"), fontsize=6, color="grey", ha="right", va="bottom")
        axes.set_title(PANELS[key], fontsize=8)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    if len(manifests) > 1 and shown:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=7, frameon=False, loc="outside lower center", ncols=4)
    return figure


def _draw(axes: Axes, key: str, trained: _Points, held_out: _Points, colour: str, name: str) -> None:
    """One artefact in one panel."""
    line = _series(trained, key)
    axes.plot(*_thinned(line), linewidth=1, color=colour, label=name)
    if key in _DASHED:
        axes.plot(*_thinned(_series(trained, _DASHED[key])), linewidth=1, linestyle="--", color=colour)
        axes.plot(*_columns(_series(held_out, _DASHED[key])), "o", markersize=2.5, markerfacecolor="white", color=colour)
    dots = _series(held_out, key)
    axes.plot(*_columns(dots), "o", markersize=2.5, color=colour)
    errors = dict(_series(held_out, f"{key}_error"))
    for step, value in dots:
        if errors.get(step):
            axes.plot([step, step], [value - 2 * errors[step], value + 2 * errors[step]], linewidth=0.8, color=colour)
    if not line:
        axes.plot(*_columns(dots), linewidth=0.7, linestyle=":", color=colour)


def _series(points: _Points, key: str) -> list[tuple[float, float]]:
    return [(step, numbers[key]) for step, numbers in points if key in numbers]


def _columns(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = list(points)
    return [step for step, _ in pairs], [value for _, value in pairs]


def _thinned(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    size = -(-len(points) // _POINTS) or 1
    spans = [points[start : start + size] for start in range(0, len(points), size)]
    return _columns((fmean(step for step, _ in span), fmean(value for _, value in span)) for span in spans)
