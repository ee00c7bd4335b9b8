"""Training curves: what a trainer's numbers are called, and the picture of them, in the UI and on the report's page.

What belongs here: names and drawing. What does not: recording the numbers (``workers/watch.py``) and how pictures look (``base/plots.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rlhi_dagster.base import pictures, plots
from rlhi_dagster.engines.models import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "curves.png"
"""In the folder of an artefact: the picture of its own curves."""
_COMPARED = ".curves"
"""In the folder of an asset: pictures of several of its artefacts, named by the digest of their manifests."""
OBSERVED = "observed"
"""Key of a worker's message with numbers to show while it works: ``name`` of what is trained, ``line`` in words, and ``numbers``."""
NAMES = {
    "loss": "loss",
    "preference_loss": "preference_loss",
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
    "preference_loss": "DPO term (nats)",
    "margin": "reward margin",
    "accuracy": "pair accuracy",
    "token_accuracy": "token accuracy",
    "logp_chosen": "log p: chosen, rejected dashed",
    "entropy": "entropy (nats a token)",
    "kl": "KL to the start (nats a reply)",
    "samples_malformed": "malformed samples",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s, useful dashed",
    "memory_gib": "memory (GiB)",
}
"""Panels by the quantity that they show, in order."""
COMPARED = {
    "loss": "loss (nats)",
    "preference_loss": "DPO term (nats)",
    "margin": "reward margin",
    "accuracy": "pair accuracy",
    "logp_chosen": "log p(chosen)",
    "kl": "KL to the start (nats a reply)",
    "samples_malformed": "malformed samples",
}
"""Panels of a picture of several artefacts."""
_DASHED = {"logp_chosen": "logp_rejected", "tokens_per_second": "useful_tokens_per_second"}
"""A panel's second quantity."""
_LOOKS = {"training": "-", "held-out users": "o", "chosen snapshot": "|"}
_Points = Sequence[tuple[int, Mapping[str, float]]]
_POINTS = 40


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


def recorded(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the quantities that an artefact recorded."""
    return {name for _, numbers in (*training_points(manifest), *held_out_points(manifest)) for name in numbers}


def ends(manifests: Mapping[str, Mapping[str, Any]], panels: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Ends of each panel's axis that hold all values of all artefacts with a little air, to draw them apart and compare them."""
    points = [numbers for manifest in manifests.values() for _, numbers in (*training_points(manifest), *held_out_points(manifest))]
    found = {}
    for key in panels:
        values = [numbers[name] for numbers in points for name in (key, _DASHED.get(key, key)) if name in numbers] or [0.0]
        air = 0.06 * (max(values) - min(values)) or 0.5
        found[key] = (min(values) - air, max(values) + air)
    return found


def curves(
    manifests: Mapping[str, Mapping[str, Any]],
    *,
    panels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    panel: tuple[float, float] = (2.5, 1.75),
    columns: int | None = None,
    size: float = 7,
) -> Figure:
    """Small multiples over training steps; panels that no artefact recorded are left out.

    Of one artefact everything: lines are training points, dots held-out users, with two standard errors where there is one; a vertical line
    marks the snapshot that was chosen, a horizontal one ln 2, where the DPO term starts. Of several what they are compared by,
    on held-out users if there are any, with a ring around the chosen snapshot. Long runs are drawn as means of at most ``_POINTS`` equal
    spans.

    Args:
        manifests: Name to manifest of each artefact.
        panels: Title of each quantity to show, in order; without it `PANELS` or `COMPARED`, with a legend below.
        colours: Colour of each artefact.
        limits: Ends of the axes of quantities (`ends`).
        panel: Width and height of a panel in inches.
        columns: Panels in a row.
        size: Of text.
    """
    from matplotlib.lines import Line2D

    colours = colours or {name: f"C{order % 10}" for order, name in enumerate(manifests)}
    runs = {name: _Run.of(manifest, colours[name]) for name, manifest in manifests.items()}
    is_one = len(runs) == 1
    known = set[str]().union(*map(recorded, manifests.values()))
    shown = {key: title for key, title in (panels or (PANELS if is_one else COMPARED)).items() if key in known}
    columns = min(max(len(shown), 1), columns or (4 if is_one else 3))
    rows = max(-(-len(shown) // columns), 1)
    with plots.style(size):
        figure, every = plots.canvas(panel[0] * columns, panel[1] * rows + 0.4, rows, columns)
        for axes, (key, title) in zip(every, shown.items(), strict=False):
            for run in runs.values():
                (_draw if is_one else _compare)(axes, key, run)
            if key == "preference_loss":
                axes.axhline(math.log(2), color=plots.MUTED, linewidth=0.7, linestyle=":")
                axes.annotate("ln 2", (1, math.log(2)), xycoords=("axes fraction", "data"), color=plots.MUTED, ha="right", va="bottom")
            if key == "samples_malformed":
                axes.set_ylim(0, max(0.1, 1.1 * axes.dataLim.y1))
            if limits:
                axes.set_ylim(*limits[key])
            axes.set_title(title, loc="left", color=plots.MUTED, pad=4)
            axes.grid(axis="y")
            axes.locator_params(axis="y", nbins=4)
        for unused in every[len(shown) :]:
            figure.delaxes(unused)
        if panels is None:
            handles = (
                [Line2D([], [], color=plots.MUTED, label=label, **_look(mark)) for label, mark in _LOOKS.items()]
                if is_one and shown
                else [Line2D([], [], color=run.colour, linewidth=1, label=name) for name, run in runs.items()]
            )
            figure.legend(handles=handles, loc="outside lower center", ncols=4)
        elif shown:
            every[len(shown) - 1].set_xlabel("step")
        if columns == 1:
            for axes in every[1:]:
                axes.sharex(every[0])
            for axes in every:
                axes.label_outer()
    return figure


def picture(folder: Path, manifest: Mapping[str, Any]) -> bytes | None:
    """PNG of an artefact's curves, drawn by the worker that trained it; an artefact from before pictures were kept gets its own now.

    Args:
        folder: Of the artefact.
        manifest: What is to be drawn.

    Returns:
        ``None`` for a picture that is too large to be shown.
    """
    return pictures.kept(folder / FILE, lambda: curves({folder.name: manifest}))


def compared(folder: Path, manifests: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    """PNG of several artefacts' curves, drawn when one of them is new.

    Args:
        folder: Of the asset that they belong to.
        manifests: By name, in the order of their colours.

    Returns:
        ``None`` for a picture that is too large to be shown.
    """
    return pictures.kept(folder / _COMPARED / f"{digest_of(list(manifests.items()))}.png", lambda: curves(manifests))


@dataclass(frozen=True, slots=True)
class _Run:
    """What is drawn of an artefact."""

    trained: _Points
    held_out: _Points
    chosen: int | None
    colour: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any], colour: str) -> _Run:
        chosen = manifest.get("chosen", {}).get("step")
        return cls(training_points(manifest), held_out_points(manifest), chosen, colour)


def _draw(axes: Axes, key: str, run: _Run) -> None:
    """One artefact in one panel, alone."""
    line, dots = _series(run.trained, key), _series(run.held_out, key)
    axes.plot(*_columns(_thinned(line or dots)), linewidth=1, color=run.colour)
    if key in _DASHED:
        axes.plot(*_columns(_thinned(_series(run.trained, _DASHED[key]))), linewidth=1, linestyle="--", color=run.colour)
        axes.plot(*_columns(_series(run.held_out, _DASHED[key])), "o", markersize=2.5, markerfacecolor="white", color=run.colour)
    axes.plot(*_columns(dots), "o", markersize=2.5, color=run.colour)
    errors = dict(_series(run.held_out, f"{key}_error"))
    for step, value in dots:
        reach = 2 * errors.get(step, 0.0)
        axes.plot([step, step], [value - reach, value + reach], linewidth=0.8, color=run.colour)
    if run.held_out and run.chosen is not None:
        axes.axvline(run.chosen, color=plots.MUTED, linewidth=0.7, alpha=0.7)


def _compare(axes: Axes, key: str, run: _Run) -> None:
    """One artefact in one panel, among others."""
    dots = _series(run.held_out, key)
    axes.plot(*_columns(_thinned(dots or _series(run.trained, key))), linewidth=1, color=run.colour)
    chosen = [(step, value) for step, value in dots if step == run.chosen]
    axes.plot(*_columns(chosen), "o", markersize=4, markerfacecolor="none", color=run.colour)


def _look(mark: str) -> dict[str, Any]:
    return {"linewidth": 1} if mark == "-" else {"linewidth": 0, "marker": mark, "markersize": 2.5 if mark == "o" else 8}


def _series(points: _Points, key: str) -> list[tuple[float, float]]:
    return [(step, numbers[key]) for step, numbers in points if key in numbers]


def _columns(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = list(points)
    return [step for step, _ in pairs], [value for _, value in pairs]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _POINTS) or 1
    spans = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(step for step, _ in span), fmean(value for _, value in span)) for span in spans]
