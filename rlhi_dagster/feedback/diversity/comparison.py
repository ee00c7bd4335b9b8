"""Corpora compared outside of any run, and how a comparison is shown: what ``rlhi diversity`` does.

What belongs here: from locations to measured corpora, the comparison as text and as a small picture. What does not: reading corpora
(``corpora``) and the measures (``diversity``, ``entropies``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhi_dagster.base import plots
from rlhi_dagster.feedback.diversity import corpora, measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Embed = Callable[[Sequence[str]], np.ndarray]
SEED = 7
"""Of the shipped profiles."""


def settings_of(corpus: str) -> corpora.CorpusSettings:
    """Settings of ``NAME=LOCATION``, or of a location alone, which is named after its file; the kind is told from the columns.

    Raises:
        ValueError: There is nothing at the location, or no location.
    """
    name, separator, location = corpus.partition("=")
    if not separator:
        name, location = Path(corpus).name.split(".")[0], corpus
    if not location.strip():
        raise ValueError(f"{corpus!r} names no location: give a file, a folder, a glob or an hf:// path")
    return corpora.CorpusSettings(name=name, kind=corpora.detect(location), location=location)


def embedded(name: str, prompts: Any, embed: Embed, *, is_part: bool = False) -> measures.Embedded:
    """The prompts of a corpus (``corpora.distinct``) as vectors."""
    return measures.Embedded(name, prompts["user_id"].to_list(), embed(prompts["prompt"].to_list()), is_part)


def compare(
    found: Sequence[corpora.Corpus], embed: Embed, encoder: str, seed: int = SEED
) -> tuple[measures.Rows, list[measures.Comparison]]:
    """Measure corpora that were read: see ``diversity.measure``."""
    return measures.measure([embedded(corpus.name, corpus.prompts, embed) for corpus in found], encoder, seed)


def text(rows: measures.Rows, compared: Sequence[measures.Comparison]) -> str:
    """The measures as a table of text, and a sentence for every pair of corpora."""
    lines = [f"{'corpus':<20}{'n':>9}  {'mean distance':<26}{'Vendi':>8}  {'Vendi, equal n':<24}{'cluster entropy, equal n':<28}"]
    for row in rows:
        cells = (
            _with_interval(row["value"], row["ci_low"], row["ci_high"], 4),
            f"{row['vendi_score']:.1f}",
            _with_interval(row["vendi_score_matched"], row["vendi_ci_low"], row["vendi_ci_high"], 1),
            _with_interval(row["cluster_entropy_matched"], row["cluster_ci_low"], row["cluster_ci_high"], 2),
        )
        lines.append(f"{row['corpus']:<20}{row['n']:>9,}  {cells[0]:<26}{cells[1]:>8}  {cells[2]:<24}{cells[3]:<28}".rstrip())
    sizes = {row["matched_n"] for row in rows} - {None}
    equal = f"equal n: {sizes.pop():,} prompts; encoder: {rows[0]['encoder']}" if sizes else f"encoder: {rows[0]['encoder']}"
    return "\n".join([*lines, equal, "", *(each.statement for each in compared)])


def drawing(rows: measures.Rows) -> Figure:
    """Distance by corpus, the highest on top: a dot with its interval."""
    shown = sorted((row for row in rows if row["value"] is not None), key=lambda row: (row["value"], row["corpus"]))
    lines = [(f"{row['corpus']} ({row['n']:,})", row["value"], row["ci_low"], row["ci_high"]) for row in shown]
    figure, _ = plots.intervals(lines, "mean pairwise cosine distance, 95 % interval")
    return figure


def _with_interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if low is not None else "")
