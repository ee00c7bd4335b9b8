"""Removing given answers from the response store: what is to be gone is gone from the segments and the references.

What belongs here: finding the rows of keys, or of requests with given messages, and leaving them out of their segments. What does not:
which answers have to go (``rlhi_dagster.forgetting``), and answers that are merely old or unused (``garbage.py``).

Do not remove while a run is under way: it may count on an answer that goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.store import uses
from rlhi_dagster.store.compaction import folders, locked, replace
from rlhi_dagster.store.segments import ERRORS, FINAL, listing, read_columns, stored_schema

ASKED = ("key", "system_id", "history_id", "message_id")
"""What of an answer's request the store remembers: see ``engines.base.Trace``."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of one model's answers.

    Attributes:
        kind: Of answers.
        folder: Where they lie.
        rows: Answers, errors among them.
    """

    kind: str
    folder: Path
    rows: int


def remove(root: Path, keys: Collection[str]) -> list[Removed]:
    """Remove the answers of ``keys``, final ones and errors of the moment, of every kind and model; references name them no more.

    Every segment that holds one is replaced by one without; the other answers stay as they are. Killed at any moment, no other answer
    is lost, and removing again removes the rest.

    Raises:
        DamagedSegmentError: A segment cannot be read, so nobody can tell what it holds; segments before it are done.
    """
    if not keys:
        return []
    wanted = pl.Series("key", sorted(keys), dtype=pl.String())
    removed = [_remove(kind, folder, wanted) for kind, folder in folders(root)]
    uses.without(root, wanted)
    return [each for each in removed if each.rows]


def count(root: Path, keys: Collection[str]) -> dict[tuple[str, str], int]:
    """How many answers ``remove`` would remove, by kind and folder name of the model."""
    wanted = pl.Series("key", sorted(keys), dtype=pl.String())
    found = {(kind, folder.name): sum(len(rows) for _, rows in _rows(kind, folder, wanted)) for kind, folder in folders(root)}
    return {place: rows for place, rows in found.items() if rows}


def asked(root: Path, messages: Mapping[str, Collection[int]]) -> pl.DataFrame:
    """Answers whose request has a remembered part among given ones.

    Args:
        root: Folder of the whole store.
        messages: Digests by column: ``system_id``, ``history_id`` or ``message_id``.

    Returns:
        ``ASKED``, ``kind`` and ``model`` (folder name) of every answer of which one of the columns has one of its digests.
    """
    schema = {**{name: stored_schema("chat")[name] for name in ASKED}, "kind": pl.String(), "model": pl.String()}
    parts = [pl.DataFrame(schema=schema)]
    for kind, folder in folders(root):
        if not {*ASKED} <= set(stored_schema(kind)):
            continue
        for name in (*listing(folder, FINAL), *listing(folder, ERRORS)):
            rows = read_columns(folder / name, kind, ASKED)
            hits = [pl.col(column).is_in(pl.Series(sorted(ids), dtype=pl.UInt64()).implode()) for column, ids in messages.items()]
            parts.append(rows.filter(pl.any_horizontal(hits)).with_columns(kind=pl.lit(kind), model=pl.lit(folder.name)))
    return pl.concat(parts).unique().sort("key")


def _remove(kind: str, folder: Path, keys: pl.Series) -> Removed:
    with locked(folder):
        dead = dict(_rows(kind, folder, keys))
        for prefix in (FINAL, ERRORS):
            replace(folder, kind, prefix, [[name] for name in listing(folder, prefix) if name in dead], dead)
    return Removed(kind, folder, sum(map(len, dead.values())))


def _rows(kind: str, folder: Path, keys: pl.Series) -> Iterator[tuple[str, np.ndarray]]:
    """Segments that hold some of the keys, and which of their rows do."""
    for name in (*listing(folder, FINAL), *listing(folder, ERRORS)):
        is_wanted = read_columns(folder / name, kind, ["key"])["key"].is_in(keys.implode())
        if is_wanted.any():
            yield name, is_wanted.arg_true().to_numpy()
