"""Whether a response store is sound: every row readable, every key well formed and in place, and the index true.

What belongs here: finding problems. What does not: mending them. A damaged segment is moved away by hand, and its answers are asked
again; a damaged index is deleted and made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from rlhi_dagster.store.compaction import PARTIAL_SECONDS, Tell
from rlhi_dagster.store.folding import LOCK, locked
from rlhi_dagster.store.index import INDEX, Entries, Index, parse
from rlhi_dagster.store.segments import ERRORS, FINAL, DamagedSegmentError, listing, opened, stored_schema


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a file.

    Attributes:
        file: Which.
        what: In a few words.
    """

    file: Path
    what: str


@dataclass(frozen=True, slots=True)
class _Digest:
    """Rows of a segment, and a sum over their keys and positions that does not depend on their order."""

    rows: int
    total: int


def verify(kind: str, folder: Path, tell: Tell = lambda *_: None) -> list[Problem]:
    """Problems of one model's folder; holds the lock, so that segments come but do not go meanwhile."""
    with locked(folder):
        names = [*listing(folder, FINAL), *listing(folder, ERRORS)]
        problems: list[Problem] = []
        digests: dict[str, _Digest] = {}
        for done, name in enumerate(names, 1):
            try:
                digests[name] = _read(folder / name, kind)
            except _BadSegmentError as error:
                problems += [Problem(folder / name, what) for what in error.args]
            except DamagedSegmentError as error:
                problems.append(Problem(folder / name, f"cannot be read: {error.__cause__}"))
            tell(done, len(names))
        return [*problems, *_of_index(folder, digests, set(names)), *_strangers(folder)]


class _BadSegmentError(Exception):
    """A readable segment is not what it should be; its arguments are the problems."""


def _read(file: Path, kind: str) -> _Digest:
    """Read all of a segment, one row group at a time."""
    rows = total = 0
    last = ""
    problems: list[str] = []
    with opened(file) as parquet:
        problems += _of_schema(parquet, kind)
        if problems:
            raise _BadSegmentError(*problems)
        for group in range(parquet.metadata.num_row_groups):
            frame = pl.DataFrame(pl.from_arrow(parquet.read_row_group(group)))
            keys = frame["key"]
            is_key, hi, lo = parse(keys)
            if not is_key.all():
                raise _BadSegmentError("a key is not 32 hexadecimal digits")
            if len(keys) and (keys[0] <= last or not (keys[1:] > keys[:-1]).all()):
                problems.append("keys are not in ascending order, each once")
            if file.name.startswith(ERRORS) and not frame["is_retryable"].fill_null(value=False).all():
                problems.append("a final answer lies among the errors of the moment")
            total += _sum(hi, lo, np.arange(rows, rows + len(keys), dtype=np.uint64))
            rows, last = rows + len(keys), keys[-1] if len(keys) else last
    if problems:
        raise _BadSegmentError(*dict.fromkeys(problems))
    return _Digest(rows, total % 2**64)


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


def _sum(hi: np.ndarray, lo: np.ndarray, row: np.ndarray) -> int:
    """Entries mixed so that none of hi, lo and row can change, or change places, without the sum changing."""
    with np.errstate(over="ignore"):
        mixed = (hi * np.uint64(0x9E3779B97F4A7C15)) ^ (lo * np.uint64(0xC2B2AE3D27D4EB4F)) ^ (row * np.uint64(0x165667B19E3779F9))
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        return int((mixed ^ (mixed >> np.uint64(32))).sum(dtype=np.uint64))


def _of_index(folder: Path, digests: dict[str, _Digest], names: set[str]) -> Iterator[Problem]:
    """Problems of the index; segments that have some of their own are not compared with it."""
    file = folder / INDEX
    try:
        index = Index(file)
    except FileNotFoundError:
        return
    except ValueError as error:
        yield Problem(file, f"cannot be read: {error}; delete it")
        return
    gone = [name for name in index.segments if name not in names]
    if gone:
        yield Problem(file, f"names {len(gone):,} segments that are gone; delete it")
        return
    found = _index_digests(index)
    if found is None:
        yield Problem(file, "entries are not in order; delete it")
        return
    for name, digest in zip(index.segments, found, strict=True):
        if name in digests and digests[name] != digest:
            yield Problem(file, f"does not agree with {name}; delete it")


def _index_digests(index: Index) -> list[_Digest] | None:
    """What the index says about each segment, or ``None`` if its entries are not in order."""
    rows, totals = np.zeros(len(index.segments), np.int64), [0] * len(index.segments)
    last = (-1, -1)
    for batch in index.batches:
        if (int(batch.hi[0]), int(batch.lo[0])) < last or not _is_sorted(batch) or batch.segment.max() >= len(rows):
            return None
        last = int(batch.hi[-1]), int(batch.lo[-1])
        order = np.argsort(batch.segment, kind="stable")
        numbers, starts = np.unique(batch.segment[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            rows[number] += len(part)
            totals[number] += _sum(batch.hi[part], batch.lo[part], batch.row[part].astype(np.uint64))
        index.release()
    return [_Digest(int(count), total % 2**64) for count, total in zip(rows, totals, strict=True)]


def _is_sorted(batch: Entries) -> bool:
    rises, stays = batch.hi[1:] > batch.hi[:-1], batch.hi[1:] == batch.hi[:-1]
    return bool((rises | (stays & (batch.lo[1:] >= batch.lo[:-1]))).all())


def _strangers(folder: Path) -> Iterator[Problem]:
    for file in sorted(folder.iterdir()):
        if file.suffix == ".partial":
            try:
                age = time.time() - file.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > PARTIAL_SECONDS:
                yield Problem(file, "was left behind by a killed writer; `rlhi store compact` removes it")
        elif file.name not in {INDEX, LOCK} and not (file.suffix == ".parquet" and file.name.startswith((f"{FINAL}-", f"{ERRORS}-"))):
            yield Problem(file, "is no file of a response store")
