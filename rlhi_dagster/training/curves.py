"""Training curves as a small picture for the asset page."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 40
PANELS = {"loss": "loss", "rewards/margins": "reward margin", "rewards/accuracies": "pair accuracy", "logps/chosen": "log p(chosen)"}


def curves(manifests: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Small multiples over training steps, one line per artefact; panels that no artefact recorded are left out.

    Long runs are drawn as means of at most ``_POINTS`` equal spans.
    """
    from matplotlib.figure import Figure

    recorded = {key: title for key, title in PANELS.items() if any(key in step for m in manifests.values() for step in m["steps"])}
    figure = Figure(figsize=(2.6 * max(len(recorded), 1), 2.2))
    for position, (key, title) in enumerate(recorded.items(), 1):
        axes = figure.add_subplot(1, len(recorded), position)
        for name, manifest in manifests.items():
            points = _thinned([(step["step"], step[key]) for step in manifest["steps"] if key in step])
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=name)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    if len(manifests) > 1 and recorded:
        figure.axes[0].legend(fontsize=5, frameon=False)
    figure.tight_layout()
    return figure


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _POINTS) or 1
    spans = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(step for step, _ in span), fmean(value for _, value in span)) for span in spans]
