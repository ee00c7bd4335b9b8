"""From the inputs to the page: one template, and every string escaped that is no picture of ours.

What belongs here: setting the template up. What does not: what sections show (``results``, ``logs``, ``wishes``, ``process``) and their
markup and text (``page.html``).
"""

from __future__ import annotations

import math
import re

import jinja2
from markupsafe import Markup, escape

from rlhi_dagster.base.escapes import visible
from rlhi_dagster.report import logs, process, results, wishes, words
from rlhi_dagster.report.data import ReportData

_CODE = re.compile(r"`([^`\n]+)`")


def render(data: ReportData) -> str:
    """The page as HTML.

    Args:
        data: What to show; whatever is missing is named on the page together with the asset that makes it.
    """
    return template("page.html").render(
        headline=data.headline,
        simulated=[part for part in re.split(r"\n\s*\n", data.simulated.strip()) if part],
        lead=results.lead(data),
        results=results.results(data),
        differences=results.differences(data),
        history=results.cold_start(data),
        other_personas=results.other_personas(data),
        judges=results.judges(data),
        reasoning=results.reasoning(data),
        benchmarks=results.benchmarks(data),
        samples=results.samples(data),
        show_samples=data.show_samples,
        logs=logs.logs(data),
        wishes=wishes.wishes(data),
        reattempts=logs.reattempts(data),
        diversity=logs.diversity(data),
        pairs=process.pairs(data),
        rewards=process.rewards(data),
        training=process.training(data),
        deviations=data.deviations,
        ln2=f"{math.log(2):.3f}",
    )


def _visible(value: object) -> object:
    """Text without what turns the direction of writing or is no character of a page; what is markup is ours."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def template(name: str) -> jinja2.Template:
    """One of the templates beside this module, with the words that pages share."""
    loader = jinja2.PackageLoader("rlhi_dagster.report", "")
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    page.filters |= {"code": _code, "percent": words.percent, "probability": words.probability}
    page.globals |= {"bracket": words.bracket, "points": words.points, "css": Markup(loader.get_source(page, "page.css")[0])}
    return page.get_template(name)


def _code(text: str) -> Markup:
    """Escaped text in which `backticks` become code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(visible(text)))))
