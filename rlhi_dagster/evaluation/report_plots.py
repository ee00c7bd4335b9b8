"""The report's plots: small inline SVGs that take their colours from the page.

What belongs here: drawing numbers that are already computed. What does not: computing them, and captions or legends
(``report_page``).

Plots are drawn in marker colours that are replaced by CSS variables afterwards, so one picture serves light, dark and print;
text stays text. The bytes are the same on every run: no dates, a fixed salt for ids, and Matplotlib's own font for measuring.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rlhi_dagster.evaluation.report_page import Html, escape, percent
from rlhi_dagster.training.recipes import Recipe, Role, ranked

WIDTH = 4.4
"""Width of a plot in inches; at 72 units an inch it fits a phone at about full size."""

_TONES = {
    "#0000a1": "--ink",
    "#0000a2": "--muted",
    "#0000a3": "--grid",
    "#0000a4": "--paper",
    "#0000b1": "--s-base",
    "#0000b2": "--s-sft",
    "#0000b3": "--s-rewrites",
    "#0000b4": "--s-rewards",
    "#0000b5": "--s-other",
    "#0000b6": "--s-more",
}
_FAMILIES = tuple(_TONES.values())[4:]
"""The first is that of the base."""
_SYMBOLS = "osD^v"
_MARKER = {variable: colour for colour, variable in _TONES.items()}
_INK, _MUTED, _GRID, _PAPER = (_MARKER[name] for name in ("--ink", "--muted", "--grid", "--paper"))


@dataclass(frozen=True, slots=True)
class Mark:
    """How a series looks: ``tone`` is one of the page's ``--s-`` variables, controls are hollow."""

    tone: str
    is_hollow: bool = False
    symbol: str = "o"

    @property
    def css(self) -> str:
        """The tone as a CSS colour."""
        return f"var({self.tone})"


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


def marks(arms: Mapping[str, Recipe]) -> dict[str, Mark]:
    """The look of every recipe: its family gives the colour, controls are hollow, and recipes that would look alike get other symbols."""
    names = ranked(arms)
    families = list(dict.fromkeys(arms[name].family for name in names))
    found, alike = {}, Counter[tuple[str, bool]]()
    for name in names:
        place, is_control = families.index(arms[name].family), arms[name].role is Role.CONTROL
        tone = _FAMILIES[place if place < len(_FAMILIES) else 1 + (place - 1) % (len(_FAMILIES) - 1)]
        found[name] = Mark(tone, is_control, _SYMBOLS[alike[tone, is_control] % len(_SYMBOLS)])
        alike[tone, is_control] += 1
    return found


def forest(rows: Sequence[Row], name: str, *, zero: bool = False, limits: tuple[float, float] | None = None, unit: str = "\u202f%") -> Html:
    """Values with intervals, one under another, each labelled above its line; values are shares, shown times 100.

    Args:
        rows: From top to bottom.
        name: What a screen reader says.
        zero: Mark 0 on every line (differences).
        limits: Ends of the axis; chosen to hold every interval if left out.
        unit: What follows a tick label.
    """
    low, high = limits or _limits([end for row in rows for end in (row.value, row.low, row.high) if end is not None], zero)

    def draw(axes: Any) -> None:
        for position, row in enumerate(rows):
            y = -position
            tone = _MARKER[row.mark.tone]
            axes.plot([low, high], [y, y], color=_GRID, linewidth=0.8, zorder=1)
            if zero:  # a tick a row: one long line would cross the labels
                axes.plot([0, 0], [y - 0.12, y + 0.12], color=_MUTED, linewidth=1.2, zorder=1)
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [y, y], color=tone, linewidth=2.4, solid_capstyle="round", zorder=2)
            face = _PAPER if row.mark.is_hollow else tone
            axes.plot(
                [row.value], [y], row.mark.symbol, markersize=7, markerfacecolor=face, markeredgecolor=tone, markeredgewidth=1.8, zorder=3
            )
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom", "fontsize": 10}
            axes.annotate(row.label, (0, y), (0, 8), color=_INK, ha="left", **place)
            axes.annotate(row.text, (1, y), (0, 8), color=_MUTED, ha="right", **place)
        axes.set_xlim(low, high)
        axes.set_ylim(-len(rows) + 0.45, 0.72)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        _percent_axis(axes.xaxis, unit)

    return _svg(draw, name, height=0.42 + 0.5 * len(rows))


def category_points(
    categories: Sequence[str], series: Sequence[Series], name: str, *, axis: str, limits: tuple[float, float] | None = None
) -> Html:
    """Shares over ordered categories, series side by side, joined by thin lines, with intervals."""

    def draw(axes: Any) -> None:
        step = min(0.16, 0.7 / max(len(series), 1))
        for order, one in enumerate(series):
            shift = step * (order - (len(series) - 1) / 2)
            tone = _MARKER[one.mark.tone]
            spots = [point[0] + shift for point in one.points]
            axes.plot(spots, [point[1] for point in one.points], color=tone, linewidth=1, alpha=0.55, zorder=2)
            for spot, (_, value, low, high) in zip(spots, one.points, strict=True):
                if low is not None and high is not None:
                    axes.plot([spot, spot], [low, high], color=tone, linewidth=1.8, zorder=2)
                face = _PAPER if one.mark.is_hollow else tone
                axes.plot([spot], [value], one.mark.symbol, markersize=5.5, markerfacecolor=face, markeredgecolor=tone, zorder=3)
        axes.set_xticks(range(len(categories)), categories)
        axes.set_xlim(-0.55, len(categories) - 0.45)
        axes.set_ylim(*(limits or (0.0, _limits([end for one in series for p in one.points for end in p[1:] if end is not None], True)[1])))
        axes.set_xlabel(axis)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        _percent_axis(axes.yaxis)

    return _svg(draw, name, height=2.7)


def bars(steps: Sequence[tuple[str, int, str, Mark]], name: str) -> Html:
    """Counts as horizontal bars from top to bottom, each with a label above it and a remark at its end."""
    longest = max((count for _, count, _, _ in steps), default=1) or 1

    def draw(axes: Any) -> None:
        for position, (label, count, remark, mark) in enumerate(steps):
            axes.barh([-position], [count], height=0.36, color=_MARKER[mark.tone], zorder=2)
            place = {"textcoords": "offset points", "va": "bottom", "fontsize": 10}
            axes.annotate(label, (0, -position), (0, 9), xycoords=("axes fraction", "data"), color=_INK, ha="left", **place)
            axes.annotate(remark, (1, -position), (0, 9), xycoords=("axes fraction", "data"), color=_MUTED, ha="right", **place)
        axes.set_xlim(0, longest)
        axes.set_ylim(-len(steps) + 0.65, 0.72)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)

    return _svg(draw, name, height=0.1 + 0.46 * len(steps))


def curves(
    panels: Sequence[tuple[str, Sequence[tuple[Sequence[float], Sequence[float], bool]]]],
    mark: Mark,
    name: str,
    limits: Mapping[str, tuple[float, float]],
) -> Html:
    """Quantities over training steps, one panel under another; a dashed line is a panel's second quantity.

    Args:
        panels: Title and lines: (steps, values, is dashed).
        mark: The recipe's look.
        name: What a screen reader says.
        limits: Panel title to the ends of its axis, the same for all recipes.
    """

    def draw(all_axes: Any) -> None:
        for axes, (title, lines) in zip(all_axes, panels, strict=True):
            for steps, values, is_dashed in lines:
                style = (0, (3, 2)) if is_dashed else "-"
                axes.plot(steps, values, color=_MARKER[mark.tone], linewidth=1.5, linestyle=style, alpha=0.75 if is_dashed else 1)
            axes.set_title(title, loc="left", fontsize=10, color=_MUTED, pad=4)
            axes.set_ylim(*limits[title])
            axes.grid(axis="y", color=_GRID, linewidth=0.8)
            axes.locator_params(axis="y", nbins=4)
            axes.locator_params(axis="x", nbins=5, integer=True)
        all_axes[-1].set_xlabel("step")

    return _svg(draw, name, height=0.35 + 1.05 * len(panels), panels=len(panels))


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that hold all finite ``values`` with a little air."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _limits(values: Sequence[float], with_zero: bool) -> tuple[float, float]:
    low, high = min([*values, *([0.0] if with_zero else [])]), max([*values, *([0.0] if with_zero else [])])
    air = 0.08 * (high - low) or 0.01
    return low - air, high + air


def _percent_axis(axis: Any, unit: str = "\u202f%") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))

    def label(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        return percent(value, 0 if high - low >= 0.05 else 1).removesuffix("\u202f%") + unit

    axis.set_major_formatter(FuncFormatter(label))


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "rlhi",
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "axes.edgecolor": _MUTED,
        "axes.labelcolor": _MUTED,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "figure.facecolor": "none",
        "text.color": _INK,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "axes.unicode_minus": True,
    }
    context: AbstractContextManager[None] = mpl.rc_context(settings)
    return context


def _svg(draw: Callable[[Any], None], name: str, height: float, panels: int | None = None) -> Html:
    with _style():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        canvas = FigureCanvasSVG(Figure(figsize=(WIDTH, height), layout="constrained"))
        canvas.figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03)
        if panels is None:
            draw(canvas.figure.subplots())
        else:
            draw(list(canvas.figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]))
        buffer = io.StringIO()
        canvas.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(buffer.getvalue(), name)


def _inlined(svg: str, name: str) -> Html:
    """Turn Matplotlib's stand-alone document into an element of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style\b.*?</style>", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', body)
    if view is None:
        raise ValueError("Matplotlib wrote an SVG without a viewBox")
    # Ids need only be unique on the page: those of definitions are digests of what they define, the others are never referred to.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r"#0000[ab][1-6]", lambda match: f"var({_TONES[match.group()]})", body)
    body = re.sub(r"\s*\n\s*", " ", body[body.index(">") + 1 :])
    return Html(f'<svg viewBox="{view.group(1)}" role="img" aria-label="{escape(name)}">{body}')
