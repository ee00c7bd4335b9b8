"""The report's HTML: escaping, numbers in words, tables, figures, and the page around them.

What belongs here: markup. What does not: what the numbers mean (``report_results``, ``report_process``) and plots
(``report_plots``). Every string is escaped unless it is an `Html`, and only this package makes those.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STYLE = Path(__file__).with_name("report.css")

_CODE = re.compile(r"`([^`\n]+)`")


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page: its anchor, its heading and what is in it."""

    anchor: str
    title: str
    body: Html


def escape(text: object) -> Html:
    """``text`` as markup: unchanged if it is `Html`, else with ``& < > " '`` escaped."""
    return text if isinstance(text, Html) else Html(html.escape(str(text), quote=True))


def inline(text: str) -> Html:
    """Escaped text in which `backticks` become code."""
    return Html(_CODE.sub(r"<code>\1</code>", escape(text)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts, each escaped if need be, one after another."""
    return Html(between.join(escape(part) for part in parts))


def element(tag: str, *content: object, **attributes: str | None) -> Html:
    """An element; ``cls`` becomes ``class``, and attributes that are ``None`` are left out."""
    shown = "".join(
        f' {"class" if name == "cls" else name.replace("_", "-")}="{html.escape(value, quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{shown}>{join(content)}</{tag}>")


def paragraph(*content: object, cls: str | None = None) -> Html:
    """A paragraph."""
    return element("p", *content, cls=cls)


def missing(what: str, *assets: str) -> Html:
    """A box that says what is not there and which assets to materialize."""
    names = join((element("code", asset) for asset in assets), " and ")
    return element("div", f"No {what} yet: materialize ", names, ".", cls="missing")


def note(title: str, text: str) -> Html:
    """A box with a title; empty lines in ``text`` separate paragraphs."""
    paragraphs = [paragraph(inline(part)) for part in re.split(r"\n\s*\n", text.strip())]
    return element("div", element("strong", title), *paragraphs, cls="note", role="note")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", text_columns: Sequence[int] = ()) -> Html:
    """A table whose first column names the row; the others are numbers unless listed in ``text_columns``."""
    kinds = [None if position == 0 or position in text_columns else "number" for position in range(len(columns))]
    head = element("tr", *(element("th", name, scope="col", cls=kind) for name, kind in zip(columns, kinds, strict=True)))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, cls=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    title = paragraph(inline(caption), cls="caption") if caption else ""
    return join([title, element("div", element("table", element("thead", head), element("tbody", *body)), cls="scroll")])


def figure(svg: Html, title: str, about: str = "", cls: str | None = None) -> Html:
    """A plot with its title above it."""
    return element("figure", element("figcaption", title, element("span", about) if about else ""), svg, cls=cls)


def figures(items: Iterable[Html], size: str = "") -> Html:
    """Plots beside each other where there is room; ``size`` may be ``small``."""
    return element("div", *items, cls=f"figures {size}".strip())


def legend(entries: Iterable[tuple[str, str, str]]) -> Html:
    """A legend of (label, tone, mark classes); the tone is a CSS colour."""
    return element(
        "ul",
        *(element("li", element("i", style=f"--tone:{tone}", cls=mark or None), label) for label, tone, mark in entries),
        cls="legend",
    )


def minus(text: str) -> str:
    """Hyphen-minus as a real minus sign."""
    return text.replace("-", "\u2212")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "\u2013" if value is None else minus(f"{100 * value:.{digits}f}\u202f%")


def points(value: float | None) -> str:
    """A difference of shares in signed percentage points."""
    return "\u2013" if value is None else f"{minus(f'{100 * value:+.1f}')} points"


def bracket(low: float | None, high: float | None, scale: float = 100.0, digits: int = 1) -> str:
    """An interval in brackets; a dash where there is none."""
    return "[\u2013]" if low is None or high is None else minus(f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]")


def share_cell(value: float | None, low: float | None, high: float | None, n: int | None = None) -> Html:
    """A table cell: a percentage, under it the interval and, if given, n."""
    if value is None:
        return escape("\u2013" if n is None else f"\u2013 (n = {n:,})")
    lines = [bracket(low, high), *([] if n is None else [f"n = {n:,}"])]
    return join([percent(value), *(element("small", line) for line in lines)])


def rate(row: Mapping[str, Any] | None) -> Html:
    """A `share_cell` from a row with ``value``, ``ci_low``, ``ci_high`` and ``n``; a dash if there is none."""
    return escape("\u2013") if row is None else share_cell(row["value"], row["ci_low"], row["ci_high"], row["n"])


def number(value: float | None, digits: int) -> str:
    """A plain number; a dash where there is none or it is not finite."""
    return "\u2013" if value is None or not math.isfinite(value) else minus(f"{value:.{digits}f}")


def document(title: str, kicker: str, lead: Html, sections: Sequence[Section], footer: str) -> str:
    """The page: one file that asks for nothing from anywhere, which its content security policy enforces."""
    contents = element("ul", *(element("li", element("a", part.title, href=f"#{part.anchor}")) for part in sections))
    body = join(
        [
            element("header", paragraph(kicker, cls="kicker"), element("h1", title), lead, element("nav", contents, aria_label="Contents")),
            element("main", *(element("section", element("h2", part.title), part.body, id=part.anchor) for part in sections)),
            element("footer", paragraph(footer)),
        ],
        "\n",
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
