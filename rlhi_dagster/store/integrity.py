"""Whether a response store is sound: every row readable, every key well formed and in place.

What belongs here: finding problems. What does not: mending them. A damaged segment is moved away by hand, and its answers are asked
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from rlhi_dagster.base.owned import is_left
from rlhi_dagster.store.compaction import LOCK, OLD_INDEX, Tell, locked
from rlhi_dagster.store.segments import ERRORS, FINAL, KEY_PATTERN, DamagedSegmentError, listing, opened, stored_schema


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a file.

    Attributes:
        file: Which.
        what: In a few words.
    """

    file: Path
    what: str


def verify(kind: str, folder: Path, tell: Tell = lambda *_: None) -> list[Problem]:
    """Problems of one model's folder; holds the lock, so that segments come but do not go meanwhile."""
    with locked(folder):
        names = [*listing(folder, FINAL), *listing(folder, ERRORS)]
        problems: list[Problem] = []
        for done, name in enumerate(names, 1):
            try:
                problems += [Problem(folder / name, what) for what in dict.fromkeys(_of_segment(folder / name, kind))]
            except DamagedSegmentError as error:
                problems.append(Problem(folder / name, f"cannot be read: {error.__cause__}"))
            tell(done, len(names))
        return [*problems, *_strangers(folder)]


def _of_segment(file: Path, kind: str) -> Iterator[str]:
    """Read all of a segment, one row group at a time."""
    last = ""
    with opened(file) as parquet:
        of_schema = list(_of_schema(parquet, kind))
        yield from of_schema
        for group in range(parquet.metadata.num_row_groups if not of_schema else 0):
            frame = pl.DataFrame(pl.from_arrow(parquet.read_row_group(group)))
            keys = frame["key"]
            if not keys.str.contains(KEY_PATTERN).fill_null(value=False).all():
                yield "a key is not 32 hexadecimal digits"
                return
            if len(keys) and (keys[0] <= last or not (keys[1:] > keys[:-1]).all()):
                yield "keys are not in ascending order, each once"
            if file.name.startswith(ERRORS) and not frame["is_retryable"].fill_null(value=False).all():
                yield "a final answer lies among the errors of the moment"
            last = keys[-1] if len(keys) else last


def _of_schema(parquet: pq.ParquetFile, kind: str) -> Iterator[str]:
    known = stored_schema(kind)
    found = pl.DataFrame(pl.from_arrow(parquet.schema_arrow.empty_table())).schema
    for name, dtype in found.items():
        if name not in known:
            yield f"column {name} is unknown"
        elif dtype != known[name]:
            yield f"column {name} is {dtype}, not {known[name]}"
    if "key" not in found:
        yield "column key is missing"


def _strangers(folder: Path) -> Iterator[Problem]:
    for file in sorted(folder.iterdir()):
        if file.suffix == ".partial":
            if is_left(file):
                yield Problem(file, "was left behind by a killed writer; `rlhi store compact` removes it")
        elif file.name not in {LOCK, OLD_INDEX} and not (file.suffix == ".parquet" and file.name.startswith((f"{FINAL}-", f"{ERRORS}-"))):
            yield Problem(file, "is no file of a response store")
