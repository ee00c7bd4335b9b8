"""What is in a response store: counts, sizes and costs by kind and model.

What belongs here: reading the figures. What does not: how they are printed (``cli/store_command.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from rlhi_dagster.store.compaction import Tell
from rlhi_dagster.store.segments import ANSWERED_AT, ERRORS, FINAL, SCHEMAS, listing, read_columns

_SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")


@dataclass(slots=True)
class Stats:
    """Figures of one model's folder.

    Attributes:
        kind: Of answers.
        model: Folder name of the model.
        rows: Answers kept, errors among them.
        errors: By the first word of their reason; those of the moment too.
        segments: Files with answers.
        size: Bytes of all files.
        oldest: When the first answer was kept.
        newest: When the last one was.
        sums: ``prompt_tokens``, ``cached_tokens``, ``completion_tokens`` and ``cost_usd`` over all rows.
    """

    kind: str
    model: str
    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    sums: dict[str, float] = field(default_factory=dict)


def stats(kind: str, folder: Path, tell: Tell = lambda *_: None) -> Stats:
    """Read the figures of one folder, segment by segment.

    Raises:
        DamagedSegmentError: A segment cannot be read.
    """
    found = Stats(kind, folder.name)
    names = [*listing(folder, FINAL), *listing(folder, ERRORS)]
    columns = [name for name in ("error", *_SUMMED, ANSWERED_AT) if name in SCHEMAS[kind] or name == ANSWERED_AT]
    for done, name in enumerate(names, 1):
        try:
            _add(found, read_columns(folder / name, kind, columns))
        except FileNotFoundError:  # merged into another one meanwhile; that one is not in the list
            continue
        tell(done, len(names))
    found.size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return found


def _add(found: Stats, rows: pl.DataFrame) -> None:
    found.segments += 1
    found.rows += len(rows)
    if "error" in rows.columns:
        reasons = rows["error"].drop_nulls().str.extract(r"^([^:]*)")
        found.errors.update(dict(reasons.value_counts(name="n").iter_rows()))
    for name in _SUMMED:
        if name in rows.columns:
            found.sums[name] = found.sums.get(name, 0) + float(rows[name].sum() or 0)
    first, last = rows[ANSWERED_AT].min(), rows[ANSWERED_AT].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    found.oldest = min(first, found.oldest or first)
    found.newest = max(last, found.newest or last)
