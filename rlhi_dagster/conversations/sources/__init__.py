"""Where conversations come from: the settings of a source, its files, and its rows in one normalised form.

What belongs here: everything that differs between kinds of source and between file formats. What does not: judging the rows
(``rlhi_dagster.conversations.verdicts``).

A new kind is one module with a `Layout`, a `SourceKind` and an entry in ``rows.LAYOUTS``; every kind can be read from Parquet and from
JSON lines.
"""

from rlhi_dagster.conversations.sources.files import version as file_version
from rlhi_dagster.conversations.sources.rows import SourceRows, detect_kind, is_plausible, month_counts, scan_rows, source_files
from rlhi_dagster.conversations.sources.settings import PLAUSIBLE_FROM, SourceField, SourceKind, SourceSettings

__all__ = [
    "PLAUSIBLE_FROM",
    "SourceField",
    "SourceKind",
    "SourceRows",
    "SourceSettings",
    "detect_kind",
    "file_version",
    "is_plausible",
    "month_counts",
    "scan_rows",
    "source_files",
]
