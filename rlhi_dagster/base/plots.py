"""The project's look for pictures, on the report's page and in the UI: one palette, one style, and the plots that several stages draw.

What belongs here: style, canvas and plots of numbers that are already computed. What does not: computing them, plots that one stage alone
draws (beside the stage), and embedding (``metadata.plot`` in the UI, `svg` here on the page).

The page's picture takes its colours from the page: the palette's colours are replaced by CSS variables of the same values in light mode,
so one picture serves light, dark and print; text stays text. The bytes are the same on every run: no dates, a fixed salt for ids, and
Matplotlib's own font for measuring.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rlhi_dagster.base.escapes import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {
    "--ink": "#20242a",
    "--muted": "#626a75",
    "--grid": "#e8e5dd",
    "--paper": "#fcfbf8",
    "--bad": "#b0362c",
    "--s-0": "#7b818a",
    "--s-1": "#b3741a",
    "--s-2": "#2b62c4",
    "--s-3": "#0c8a6c",
    "--s-4": "#8a4fbf",
    "--s-5": "#b04a78",
}
"""Colours by the CSS variable of the page that they stand for, as `report/page.css` has them in light mode."""
INK, MUTED, GRID, PAPER, BAD = list(PALETTE.values())[:5]
SERIES = tuple(name for name in PALETTE if name.startswith("--s-"))
"""Tones of series; the first is grey."""
SYMBOLS = {"o": "", "s": "square", "D": "diamond", "^": "triangle"}
"""Markers, and their classes in a legend of the page."""
MAIN = PALETTE["--s-2"]
"""Colour of a picture that has one series."""
WIDTH = 4.4
"""Width of a plot of the page in inches; at 72 units an inch it fits a phone at about full size."""
_CHARACTERS_A_WIDTH = 44
"""Digits that fit under the axis of such a plot."""
_LETTERS_A_WIDTH = 50
"""Letters of a label and its remark that fit above a line of it, in the fonts that pages are shown in."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a series looks: ``tone`` is a name of the palette, controls are hollow."""

    tone: str
    is_hollow: bool = False
    symbol: str = "o"

    @property
    def css(self) -> str:
        """The tone as a CSS colour."""
        return f"var({self.tone})"

    @property
    def colour(self) -> str:
        """The tone as Matplotlib draws it."""
        return PALETTE[self.tone]

    @property
    def look(self) -> dict[str, Any]:
        """Arguments of a marker."""
        return {"marker": self.symbol, "markerfacecolor": PAPER if self.is_hollow else self.colour, "markeredgecolor": self.colour}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a forest plot: a value with its interval."""

    label: str
    value: float
    low: float | None
    high: float | None
    text: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class Series:
    """A series over categories: (position, value, low, high)."""

    mark: Mark
    points: Sequence[tuple[int, float, float | None, float | None]]


@contextmanager
def style(size: float) -> Iterator[None]:
    """The project's look while a picture is drawn, with text of ``size``; decorates a function, too."""
    import matplotlib as mpl

    settings = {
        "font.family": ["DejaVu Sans"],
        "font.size": size,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": size,
        "ytick.labelsize": size,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
    }
    with mpl.rc_context(settings):
        yield


def canvas(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of ``width`` by ``height`` inches, and its axes row by row; drawn in under `style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.02, h_pad=0.03)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat) if rows * columns else []


def svg(figure: Figure, name: str) -> str:
    """A picture as an element of the page; ``name`` is what a screen reader says."""
    import matplotlib as mpl

    buffer = io.StringIO()
    figure.patch.set_visible(False)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlhi"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    body = re.sub(r"<metadata>[^<]*+(?:<(?!/?metadata>)[^<]*+)*+</metadata>|<style\b[^<]*+</style>", "", drawn[drawn.index("<svg") :])
    view = re.search(r'viewBox="([^"]+)"', body)
    if view is None:
        raise ValueError("Matplotlib wrote an SVG without a viewBox")
    # Ids need only be unique on the page: those of definitions are digests of what they define, the others are never referred to.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    tones = {colour: f"var({tone})" for tone, colour in PALETTE.items()}
    body = re.sub("|".join(tones), lambda match: tones[match.group()], body)
    body = re.sub(r"(?<!\s)\s*\n\s*", " ", body[body.index(">") + 1 :])
    return f'<svg viewBox="{view.group(1)}" role="img" aria-label="{escape(visible(name))}">{visible(body)}'


@style(10)
def forest(rows: Sequence[Row], *, zero: bool = False, limits: tuple[float, float] | None = None, unit: str = "\u202f%") -> Figure:
    """Values with intervals, one under another, each labelled above its line; values are shares, shown times 100.

    Args:
        rows: From top to bottom.
        zero: Mark 0 on every line (differences).
        limits: Ends of the axis; chosen to hold every interval if left out.
        unit: What follows a tick label.
    """
    low, high = limits or _limits([end for row in rows for end in (row.value, row.low, row.high) if end is not None], zero)
    figure, (axes,) = canvas(WIDTH, 0.42 + 0.5 * len(rows))
    for y, row in zip(range(0, -len(rows), -1), rows, strict=True):
        axes.plot([low, high], [y, y], color=GRID, linewidth=0.8, zorder=1)
        if zero:  # a tick a row: one long line would cross the labels
            axes.plot([0, 0], [y - 0.12, y + 0.12], color=MUTED, linewidth=1.2, zorder=1)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=row.mark.colour, linewidth=2.4, solid_capstyle="round", zorder=2)
        axes.plot([row.value], [y], markersize=7, markeredgewidth=1.8, zorder=3, clip_on=False, **row.mark.look)
        _above(axes, y, row.label, row.text)
    axes.set_xlim(low, high)
    axes.set_ylim(-len(rows) + 0.45, 0.72)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _percent_axis(axes.xaxis, unit)
    return figure


@style(10)
def category_points(categories: Sequence[str], series: Sequence[Series], *, axis: str, limits: tuple[float, float]) -> Figure:
    """Shares over ordered categories, series side by side, joined by thin lines, with intervals."""
    figure, (axes,) = canvas(WIDTH, 2.7)
    step = min(0.16, 0.7 / max(len(series), 1))
    for order, one in enumerate(series):
        spots = [point[0] + step * (order - (len(series) - 1) / 2) for point in one.points]
        axes.plot(spots, [point[1] for point in one.points], color=one.mark.colour, linewidth=1, alpha=0.55, zorder=2)
        for spot, (_, value, low, high) in zip(spots, one.points, strict=True):
            if low is not None and high is not None:
                axes.plot([spot, spot], [low, high], color=one.mark.colour, linewidth=1.8, zorder=2)
            axes.plot([spot], [value], markersize=5.5, zorder=3, clip_on=False, **one.mark.look)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _crowded(categories) else {}
    axes.set_xticks(range(len(categories)), categories, **turned)
    axes.set_xlim(-0.55, len(categories) - 0.45)
    axes.set_ylim(*limits)
    axes.set_xlabel(axis)
    axes.grid(axis="y")
    _percent_axis(axes.yaxis)
    return figure


@style(10)
def bars(steps: Sequence[tuple[str, int, str]]) -> Figure:
    """Counts as horizontal bars from top to bottom, each with a label above it and a remark at its end."""
    figure, (axes,) = canvas(WIDTH, 0.1 + 0.46 * len(steps))
    for y, (label, count, remark) in zip(range(0, -len(steps), -1), steps, strict=True):
        axes.barh([y], [count], height=0.36, color=MAIN, zorder=2)
        _above(axes, y, label, remark)
    axes.set_xlim(0, max((count for _, count, _ in steps), default=1) or 1)
    axes.set_ylim(-len(steps) + 0.65, 0.72)
    axes.set_axis_off()
    return figure


@style(7)
def intervals(rows: Sequence[tuple[str, float, float | None, float | None]], axis: str) -> tuple[Figure, Any]:
    """Values with intervals beside their labels, the first row at the bottom; the figure and its axes, to add to."""
    figure, (axes,) = canvas(4.8, 0.6 + 0.28 * max(len(rows), 1))
    for y, (_, value, low, high) in enumerate(rows):
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], linewidth=1, color=MAIN)
        axes.plot([value], [y], "o", markersize=4, color=MAIN)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(axis)
    return figure, axes


def legend(series: Mapping[str, Mark]) -> list[tuple[str, str, str]]:
    """A legend for the page: label, CSS colour and class of each entry."""
    return [(label, mark.css, f"{SYMBOLS[mark.symbol]} {'hollow' if mark.is_hollow else ''}".strip()) for label, mark in series.items()]


def _above(axes: Any, y: float, label: str, remark: str) -> None:
    """A label at the left, as much of it as there is room for, and a remark at the right, above a line."""
    for x, text, colour, side in ((0, _fitting(label, _LETTERS_A_WIDTH - len(remark)), INK, "left"), (1, remark, MUTED, "right")):
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom", "ha": side}
        axes.annotate(text, (x, y), (0, 8), color=colour, **place)


def _fitting(label: str, room: int) -> str:
    """A label of at most ``room`` letters: of a longer one the middle is left out, since names of models differ at their ends, too."""
    if len(label) <= room:
        return label
    tail = room // 3
    return f"{label[: room - tail - 1].rstrip()}…{label[-tail:].lstrip()}"


def _crowded(labels: Sequence[str]) -> bool:
    """Whether labels of the size of a tick would touch, side by side under a plot: as many characters as the longest one each."""
    return len(labels) * (max(map(len, labels), default=0) + 1) > _CHARACTERS_A_WIDTH


def _limits(values: Sequence[float], with_zero: bool) -> tuple[float, float]:
    low, high = min([*values, *([0.0] if with_zero else [])]), max([*values, *([0.0] if with_zero else [])])
    air = 0.08 * (high - low) or 0.01
    return low - air, high + air


def _percent_axis(axis: Any, unit: str = "\u202f%") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def label(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        return f"{100 * value:.{0 if high - low >= 0.05 else 1}f}".replace("-", "\u2212") + unit

    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(label))
