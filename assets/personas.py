"""What is known about a user from their own earlier messages, with the messages that say so."""

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata
from rlhi_dagster.personas.extractive import persona_lines
from rlhi_dagster.tables import TABLES

GROUP = "personas"


@declare.table("personas", GROUP, set())
def personas(turns: pl.LazyFrame, feedback_labels: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a version of a persona line, valid from one moment until it is revised, with the messages that support it."""
    lines = persona_lines(turns, feedback_labels)
    current = lines.filter(pl.col("valid_until").is_null())
    return metadata.result(
        "personas",
        lines,
        users_with_persona=lines["user_id"].n_unique(),
        current_lines=len(current),
        current_lines_by_text=metadata.bars(dict(current["line"].value_counts(sort=True).head(12).iter_rows())),
    )


table_checks = [checks.table_check("personas", TABLES["personas"])]
