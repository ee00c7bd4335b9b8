"""What a property of tables or checkpoints is: a pure function that returns a `Finding`; an asset check is made of it (``declare.check``).

What belongs here: the finding, and the property that every table must have. What does not: properties of one stage's tables (that stage's
package). Every property fails on what it cannot verify: unknown users, persona lines, turns and missing manifests count against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import Table


@dataclass(frozen=True, slots=True)
class Finding:
    """What a property function found.

    Attributes:
        passed: Whether the property holds.
        numbers: What was counted, under stable keys; reported either way. Small frames are shown as tables.
    """

    passed: bool
    numbers: Mapping[str, Any]


def matches_table(frame: pl.LazyFrame, table: Table) -> Finding:
    """Columns and types are as declared, in every file; the key has neither nulls nor duplicates."""
    found = frame.collect_schema()
    wrong = [name for name, dtype in table.schema.items() if found.get(name) != dtype]
    extra = [name for name in found if name not in table.columns]
    if wrong or extra:
        return Finding(False, {"missing_or_mistyped": wrong, "undeclared": extra})
    key_nulls = pl.any_horizontal(pl.col(name).is_null() for name in table.unique).sum().cast(pl.Int64)
    try:
        # Counting the nulls of every column reads every file in full: one written with another schema cannot hide behind the first.
        frame.select(pl.all().null_count()).collect(engine="streaming")
        keys = frame.group_by(table.unique).len()
        rows, distinct = keys.select(pl.col("len").sum().cast(pl.Int64), pl.len().alias("keys")).collect(engine="streaming").row(0)
        nulls = frame.select(key_nulls).collect(engine="streaming").item()
    except (pl.exceptions.SchemaError, pl.exceptions.ColumnNotFoundError) as error:
        return Finding(False, {"unreadable": str(error).splitlines()[0]})
    return Finding(nulls == 0 and rows == distinct, {"rows": rows, "key_nulls": nulls, "duplicate_rows": rows - distinct})
