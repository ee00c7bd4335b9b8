"""Where conversations come from: the settings of a source, its files, and its rows in one normalised form.

What belongs here: everything that differs between layouts and between file formats. What does not: judging the rows
(``rlhi_dagster.conversations.verdicts``).

From a file to rows in three steps: the *values* of a file (``files``, ``decompression``, ``values``, ``parquet``); what a value says, a
*record* (``layouts``, with ``cells`` and ``parts``); and the *assembly* of records into conversations (``assembly``).
"""

from rlhi_dagster.conversations.sources.files import version as file_version
from rlhi_dagster.conversations.sources.rows import SourceRows, detect_kind, is_plausible, month_counts, source_files
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
    "source_files",
]
