"""Persona lines with the words that support them, as a judge reads them.

What belongs here: the text. What does not: which lines are known at a moment (``snapshots``), and whether they rest on what they cite
(``evidence``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.engines.questions import shortened

_LINE = "- "
_LONGEST = 300
"""Characters shown of a message that supports a line as a whole."""


def with_evidence(items: pl.DataFrame, personas: pl.DataFrame, turns: pl.LazyFrame) -> pl.Series:
    """For each item, its persona lines, each followed by what its user had said.

    Args:
        items: Column ``persona_line_ids``.
        personas: ``PERSONAS``; a line that is missing there is passed over.
        turns: ``TURNS``, for messages that support a line as a whole.

    Returns:
        Texts in the order of ``items``; empty where no line is known.
    """
    used = items.select(pl.col("persona_line_ids").list.explode(empty_as_null=True, keep_nulls=True)).to_series().drop_nulls().unique()
    lines = personas.filter(pl.col("persona_line_id").is_in(used.implode())).select("persona_line_id", "line", "evidence", "quotes")
    whole = lines.select("evidence", "quotes").explode("evidence", "quotes").filter(pl.col("quotes").is_null())["evidence"].drop_nulls()
    messages = dict(turns.filter(pl.col("turn_id").is_in(whole.unique().implode())).select("turn_id", "prompt").collect().iter_rows())
    texts = {row["persona_line_id"]: _line(row["line"], row["evidence"] or [], row["quotes"] or [], messages) for row in lines.to_dicts()}
    shown = ["\n".join(texts[each] for each in ids if each in texts) for ids in items["persona_line_ids"]]
    return pl.Series("known_of_user", shown, dtype=pl.String())


def lines_alone(known: str) -> str:
    """Of a text of `with_evidence` the persona lines, as models are shown a persona."""
    return "\n".join(line for line in known.split("\n") if line.startswith(_LINE))


def _line(line: str, evidence: list[str], quotes: list[str | None], messages: dict[str, str]) -> str:
    said = [messages.get(turn) if quote is None else quote for turn, quote in zip(evidence, quotes, strict=True)]
    spoken = [f'  said: "{shortened(" ".join(each.split()), _LONGEST)}"' for each in said if each]
    return "\n".join([f"{_LINE}{' '.join(line.split())}", *spoken])
