"""Whether persona lines rest on what their users had said when they became valid, and are used only after that.

What belongs here: the comparison of lines with the messages that they cite, and with the moments at which they are shown. What does not:
how lines come about (``extractive.py``, ``chat_writer.py``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.personas.versions import CORRECTION


def lines_rest_on_earlier_messages(personas: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Every line cites messages of its user from before it became valid, and the words that it quotes are in them.

    Args:
        personas: Rows of ``tables.PERSONAS``.
        turns: Rows of ``tables.TURNS``.
    """
    counts = faults(personas, turns)
    return Finding(not any(counts.values()), counts)


def faults(personas: pl.LazyFrame, turns: pl.LazyFrame) -> dict[str, int]:
    """Count citations that cannot be.

    Args:
        personas: Rows of ``tables.PERSONAS``.
        turns: Rows of ``tables.TURNS``.

    Returns:
        ``lines_without_evidence`` (corrections need none), and of citations: ``unmatched`` (a line has not as many quotes as messages),
        ``unknown_messages``, ``messages_of_others`` (of another user), ``late_messages`` (after `valid_from`), and ``false_quotes`` (not
        in the message).
    """
    lines = personas.select("user_id", "valid_from", "evidence", "quotes", "writer").collect()
    without = lines.filter((pl.col("evidence").list.len() == 0) & (pl.col("writer") != CORRECTION))
    is_matched = pl.col("evidence").list.len() == pl.col("quotes").list.len()
    cited = lines.filter(is_matched & (pl.col("evidence").list.len() > 0)).explode("evidence", "quotes")
    said = turns.select(pl.col("turn_id").alias("evidence"), pl.col("user_id").alias("said_by"), "asked_at", "prompt")
    joined = cited.lazy().join(said, on="evidence", how="left").collect(engine="streaming")
    known = joined.filter(pl.col("asked_at").is_not_null())
    quoted = known.filter(pl.col("quotes").is_not_null())
    return {
        "lines_without_evidence": len(without),
        "unmatched": lines.filter(~is_matched).height,
        "unknown_messages": len(joined) - len(known),
        "messages_of_others": known.filter(pl.col("said_by") != pl.col("user_id")).height,
        "late_messages": known.filter(pl.col("asked_at") > pl.col("valid_from")).height,
        "false_quotes": quoted.filter(~pl.col("prompt").str.contains(pl.col("quotes"), literal=True)).height,
    }


def personas_precede_use(rows: pl.LazyFrame, personas: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Every persona line shown at a turn, and every message that supports it, is from before that turn.

    A line that is unknown, or that no known message supports, does not pass. A user's own correction needs no message: it is known from
    its ``valid_from`` on.

    Args:
        rows: Columns ``asked_at`` and ``persona_line_ids``.
        personas: Columns ``persona_line_id``, ``valid_from``, ``evidence`` and ``writer``.
        turns: Columns ``turn_id`` and ``asked_at``; all turns, for the evidence may lie in any month.
    """
    used = rows.select(pl.col("persona_line_ids").alias("persona_line_id"), pl.col("asked_at").alias("used_at"))
    uses = used.explode("persona_line_id", empty_as_null=True).drop_nulls("persona_line_id").unique()
    lines = personas.select("persona_line_id", "valid_from", "evidence", "writer")
    met = uses.join(lines, on="persona_line_id", how="left").collect(engine="streaming")
    said = turns.select(pl.col("turn_id").alias("evidence"), pl.col("asked_at").alias("said_at"))
    cited = met.lazy().explode("evidence", empty_as_null=True).join(said, on="evidence", how="left").collect(engine="streaming")
    is_own_word = (pl.col("writer") == CORRECTION) & pl.col("evidence").is_null()
    known = cited.filter(pl.col("valid_from").is_not_null() & ~is_own_word.fill_null(False))
    counts = {
        "unknown_lines": met["valid_from"].null_count(),
        "undated_uses": met["used_at"].null_count(),
        "late_lines": met.filter(pl.col("valid_from") >= pl.col("used_at")).height,
        "unknown_evidence": known.filter(pl.col("said_at").is_null()).height,
        "late_evidence": known.filter(pl.col("said_at") >= pl.col("used_at")).height,
    }
    return Finding(not any(counts.values()), {"uses": len(met), **counts})
