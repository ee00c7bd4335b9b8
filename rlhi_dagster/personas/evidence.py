"""Whether persona lines rest on what their users had said when they became valid.

What belongs here: the comparison of lines with the messages that they cite. What does not: whether a line is used in time
(``checks.personas_precede_use``).
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.personas.versions import CORRECTION


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
