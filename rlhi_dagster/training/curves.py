"""Training curves as a small picture for the asset page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {"loss": "loss", "rewards/margins": "reward margin", "rewards/accuracies": "pair accuracy", "logps/chosen": "log p(chosen)"}


def curves(manifests: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Small multiples over training steps, one line per artefact; panels that no artefact recorded are left out."""
    from matplotlib.figure import Figure

    recorded = {key: title for key, title in PANELS.items() if any(key in step for m in manifests.values() for step in m["steps"])}
    figure = Figure(figsize=(2.6 * max(len(recorded), 1), 2.2))
    for position, (key, title) in enumerate(recorded.items(), 1):
        axes = figure.add_subplot(1, len(recorded), position)
        for name, manifest in manifests.items():
            points = [(step["step"], step[key]) for step in manifest["steps"] if key in step]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=name)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    if len(manifests) > 1 and recorded:
        figure.axes[0].legend(fontsize=5, frameon=False)
    figure.tight_layout()
    return figure
