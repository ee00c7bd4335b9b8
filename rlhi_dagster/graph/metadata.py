"""What the UI shows beside an asset: numbers under stable keys, small tables, text bars, and now and then a small picture.

What belongs here: turning frames and counts into Dagster metadata, and the digest of a table's content. What does not: which numbers an
asset reports (its module says).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from rlhi_dagster.base import pictures
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.tables import TABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlhi_dagster.base.lake import Staged

_CELL_CHARACTERS = 80


def result(table_name: str, rows: pl.DataFrame | Staged, /, **metadata: Any) -> dg.MaterializeResult[Any]:
    """A table as the result of the asset of the same name: value, measurements, and a data version that changes with content only.

    In a run over several partitions Dagster gives each of them this one data version; the digest of each partition alone is in its
    metadata as ``content_sha256`` (``io_managers.TableIOManager``).

    Args:
        table_name: A name in ``tables.TABLES``.
        rows: The rows in any order, or what a ``lake.TableWriter`` has staged.
        **metadata: Numbers and drawings under stable keys; a key that Dagster reserves (``dagster/...``) goes in through ``**{...}``.

    Raises:
        ValueError: A declared column is missing.
    """
    value = TABLES[table_name].conform(rows) if isinstance(rows, pl.DataFrame) else rows
    version = fingerprint(value) if isinstance(value, pl.DataFrame) else value.content_sha256
    return dg.MaterializeResult(asset_key=table_name, value=value, data_version=dg.DataVersion(version), metadata=metadata)


def code_version(context: dg.AssetExecutionContext, name: str) -> str | None:
    """Code version of an asset that the step makes."""
    return next(version for key, version in context.assets_def.code_versions_by_key.items() if key.path[-1] == name)


def bars(counts: Mapping[str, int], width: int = 30) -> dg.MarkdownMetadataValue:
    """Draw counts as text bars: small enough for the event log, readable in the UI."""
    top = max([*counts.values(), 1])
    rows = [f"| {_cell(name)} | {n:,} | {'█' * round(width * n / top)} |" for name, n in counts.items()]
    return dg.MetadataValue.md("\n".join(["| | n | |", "|---|--:|:--|", *rows]))


def markdown_table(frame: pl.DataFrame, max_rows: int = 30) -> dg.MarkdownMetadataValue:
    """Show the first ``max_rows`` rows of a frame as a Markdown table; says how many rows it leaves out."""
    shown = frame.head(max_rows)
    aligned = ["--:" if dtype.is_numeric() else "---" for dtype in frame.dtypes]
    lines = ["| " + " | ".join(_cell(name) for name in frame.columns) + " |", "|" + "|".join(aligned) + "|"]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in shown.iter_rows()]
    if len(frame) > max_rows:
        lines += ["", f"{len(frame) - max_rows:,} more rows"]
    return dg.MetadataValue.md("\n".join(lines))


def plot(figure: Figure) -> dg.MarkdownMetadataValue:
    """Embed a matplotlib figure as a small picture. Use sparingly: it is stored in the event log."""
    return picture(pictures.png(figure))


def picture(png: bytes | None) -> dg.MarkdownMetadataValue:
    """Embed a PNG; ``None``, one that was too large, is a sentence that says so: hours of work must not fail over a drawing."""
    if png is None:
        return dg.MetadataValue.md(f"The picture is left out: it has more than {pictures.MAX_BYTES:,} bytes, however coarse.")
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def number(value: Any) -> float | None:
    """A measurement as a float; ``None`` stays ``None`` (a mean over nothing)."""
    return None if value is None else float(value)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(str(value).replace("|", "\\|").split())
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…"
