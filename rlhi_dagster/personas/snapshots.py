"""The persona a model may see at a moment.

What belongs here: joining moments with the lines valid strictly before them, and the text a model reads. What does not: where lines
come from (``extractive``).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def render(lines: Sequence[str]) -> str:
    """The persona as a model reads it: one line per persona line, each starting "- "; empty if there is none."""
    return "\n".join(f"- {line}" for line in lines)


def personas_at(personas: pl.DataFrame, moments: pl.DataFrame) -> pl.DataFrame:
    """Add to each moment the persona its user had then.

    One backward search per slot over sorted times, so the cost grows with lines plus moments, not with their product.

    Args:
        personas: Rows of ``tables.PERSONAS``; versions of one user and slot must not overlap.
        moments: ``user_id``, ``asked_at`` and any further columns; both non-null.

    Returns:
        ``moments``, rows and order unchanged, with ``persona`` (rendered, sorted by slot; "" if none) and ``persona_line_ids`` (empty
        if none). A line counts if ``valid_from`` < ``asked_at`` and ``valid_until`` is null or >= ``asked_at``.

    Raises:
        ValueError: A moment lacks user or time, or two versions of a line overlap.
    """
    holes = [name for name in ("user_id", "asked_at") if moments[name].null_count()]
    if holes:
        raise ValueError(f"moments hold nulls in {', '.join(holes)}")
    lines = personas.sort("user_id", "slot", "valid_from")
    _reject_overlaps(lines)
    keys = moments.select("user_id", "asked_at").with_row_index("moment").sort("asked_at")
    found = [_latest(keys, lines.filter(pl.col("slot") == slot)) for slot in sorted(lines["slot"].unique())]
    added = pl.DataFrame(schema={"moment": pl.UInt32, "persona": pl.String, "persona_line_ids": pl.List(pl.String)})
    if found:
        added = (
            pl.concat(found)  # aspects in order, which group_by keeps
            .group_by("moment", maintain_order=True)
            .agg(persona=("- " + pl.col("line")).str.join("\n"), persona_line_ids=pl.col("persona_line_id"))
        )
    return (
        moments.with_row_index("moment")
        .join(added, on="moment", how="left", maintain_order="left")
        .drop("moment")
        .with_columns(
            pl.col("persona").fill_null(""),
            pl.col("persona_line_ids").fill_null(pl.lit([], dtype=pl.List(pl.String))),
        )
    )


def _latest(keys: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """For each moment the version of one slot's line that is valid then: moment, line, persona_line_id."""
    versions = lines.select("user_id", "valid_from", "valid_until", "line", "persona_line_id").sort("valid_from")
    # A language model's slots are many, and most users have few of them: search only the moments of those who have this one.
    concerned = keys.join(versions, on="user_id", how="semi", maintain_order="left")
    return (
        concerned.join_asof(
            versions,
            left_on="asked_at",
            right_on="valid_from",
            by="user_id",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .filter(pl.col("line").is_not_null() & (pl.col("valid_until").is_null() | (pl.col("valid_until") >= pl.col("asked_at"))))
        .select("moment", "line", "persona_line_id")
    )


def _reject_overlaps(lines: pl.DataFrame) -> None:
    """Raise if a version starts before its predecessor (same user and slot) ended."""
    ended = pl.col("valid_until").shift(1).over("user_id", "slot")
    has_predecessor = pl.col("persona_line_id").shift(1).over("user_id", "slot").is_not_null()
    bad = lines.filter(has_predecessor & (ended.is_null() | (ended > pl.col("valid_from"))))
    if len(bad):
        raise ValueError(f"{len(bad)} persona line(s) overlap with the version before; first: {bad['persona_line_id'][0]}")
