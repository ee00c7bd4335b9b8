"""What the UI shows beside an asset: numbers under stable keys, small tables, text bars, and now and then a small picture.

What belongs here: turning frames and counts into Dagster metadata, and the digest of a table's content. What does not: which numbers an
asset reports (its module says).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from rlhi_dagster.base import pictures
from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.escapes import markdown
from rlhi_dagster.base.escapes import markdown_table as table_of_cells
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.forecast import Forecast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlhi_dagster.base.lake import Staged

_CELL_CHARACTERS = 80
_PANEL_CHARACTERS = 56
"""As many as fit in a line of a table on the page of an asset, at 1,400 pixels; spaces between columns count as three."""
_OPENED = 1_000
"""The UI shows shorter Markdown in place, and of longer a link that opens it."""
_NOTHING = 1e-9
"""Smaller numbers are what rounding has left of 0."""


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


def forecast_observation(key: dg.AssetKey, planned: Forecast) -> dg.AssetObservation:
    """What an asset's model calls would cost, as its page shows it; what is unknown is left out."""
    shown = {f"forecast/{name}": value for name, value in asdict(planned).items() if value is not None}
    return dg.AssetObservation(key, description=str(planned), metadata=rounded(shown))


def bars(counts: Mapping[str, int], width: int = 13) -> dg.MarkdownMetadataValue:
    """Draw counts as text bars: small enough for the event log, readable in the UI."""
    top = max([*counts.values(), 1])
    rows = [(_cell(name), f"{n:,}", "█" * round(width * n / top)) for name, n in counts.items()]
    return dg.MetadataValue.md(table_of_cells(["", "n", ""], rows, ["---", "--:", ":--"]))


def markdown_table(frame: pl.DataFrame, max_rows: int = 30) -> dg.MarkdownMetadataValue:
    """Show the first ``max_rows`` rows of a frame as a Markdown table; says how many rows it leaves out."""
    shown = _fitting(frame.head(max_rows))
    aligned = ["--:" if dtype.is_numeric() else "---" for dtype in shown.dtypes]
    drawn = table_of_cells([_cell(name) for name in shown.columns], [[_cell(value) for value in row] for row in shown.iter_rows()], aligned)
    more = f"\n\n{len(frame) - max_rows:,} more rows" if len(frame) > max_rows else ""
    # What is too wide for the page is opened, whatever its length.
    text = f"{drawn}{more}"
    return dg.MetadataValue.md(text if _width(shown) <= _PANEL_CHARACTERS else text.ljust(_OPENED))


def markdown_list(sentences: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Show sentences one under another."""
    return dg.MetadataValue.md("\n".join(f"- {markdown(each)}" for each in sentences))


def plot(figure: Figure) -> dg.MarkdownMetadataValue:
    """Embed a matplotlib figure as a small picture. Use sparingly: it is stored in the event log."""
    return picture(pictures.png(figure))


def picture(png: bytes | None) -> dg.MarkdownMetadataValue:
    """Embed a PNG; ``None``, one that was too large, is a sentence that says so: hours of work must not fail over a drawing."""
    if png is None:
        return dg.MetadataValue.md(f"The picture is left out: it has more than {pictures.MAX_BYTES:,} bytes, however coarse.")
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def rounded(shown: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata with its numbers cut to six digits; what is left of a sum that should be 0 is 0."""
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in (shown or {}).items()}


def number(value: Any) -> float | None:
    """A measurement as a float; ``None`` stays ``None`` (a mean over nothing)."""
    return None if value is None else float(value)


def _rounded(value: float) -> float:
    return 0.0 if abs(value) < _NOTHING else float(f"{value:.6g}")


def _number(value: float) -> str:
    """Four digits, without an exponent where people read numbers without one."""
    if abs(value) < _NOTHING:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _width(frame: pl.DataFrame) -> int:
    return sum(max(len(_cell(value)) for value in (name, *frame[name])) + 3 for name in frame.columns)


def _fitting(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of few rows that is too wide for the page of an asset, turned by a quarter: its first column names the rows."""
    if _width(frame) <= _PANEL_CHARACTERS or not 1 <= len(frame) < frame.width - 1:
        return frame
    label, *others = frame.columns
    heads = [_cell(value) for value in frame[label]]
    if len({label, *heads}) <= len(heads):
        return frame
    turned = {label: others} | {head: [_cell(frame[name][row]) for name in others] for row, head in enumerate(heads)}
    return pl.DataFrame(turned)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(str(value).split())
    return markdown(text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…")
