"""Garbage of the response store: answers that are old, or that no asset's last materialization used.

What belongs here: which rows are garbage, how much that is, and deleting them. What does not: replacing segments
(``compaction.py``) and recording what assets use (``uses.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from rlhi_dagster.store import uses
from rlhi_dagster.store.compaction import Tell, folders, locked, replace
from rlhi_dagster.store.segments import ANSWERED_AT, ERRORS, FINAL, listing, read_columns

GRACE = timedelta(days=1)
"""An answer younger than this is never unreferenced: the run that asked for it may not have said so yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is garbage; an answer must fulfil both if both are given.

    Attributes:
        older_than: Answers kept longer ago than this.
        is_unreferenced: Answers that no asset's last materialization used, and that are older than ``GRACE``.
    """

    older_than: timedelta | None
    is_unreferenced: bool

    def cutoff(self, now: datetime) -> datetime:
        """Answers from then on stay."""
        ages = [self.older_than] if self.older_than is not None else []
        return now - max([*ages, *([GRACE] if self.is_unreferenced else [])])


@dataclass(frozen=True, slots=True)
class Garbage:
    """Garbage of one model's folder.

    Attributes:
        kind: Of answers.
        folder: Where they lie.
        rows: Garbage.
        of_rows: All rows.
        size: Bytes of the garbage: its share of its segments' bytes.
        note: Why nothing was looked for, if so.
    """

    kind: str
    folder: Path
    rows: int
    of_rows: int
    size: int
    note: str | None = None


def collect(root: Path, rule: Rule, *, delete: bool, tell: Callable[[str], Tell] = lambda _: lambda *_: None) -> list[Garbage]:
    """Find the garbage of a whole store, and delete it if told to.

    Raises:
        ValueError: No rule is given, or references are asked for and nothing recorded any.
    """
    if rule.older_than is None and not rule.is_unreferenced:
        raise ValueError("say what is garbage: --older-than DAYS, --unreferenced, or both")
    if rule.is_unreferenced and not uses.kinds(root):
        raise ValueError(f"no materialization has recorded which answers it uses below {root}: everything would be unreferenced")
    return [_collect(root, kind, folder, rule, delete, tell(folder.name)) for kind, folder in folders(root)]


def _collect(root: Path, kind: str, folder: Path, rule: Rule, delete: bool, tell: Tell) -> Garbage:
    if rule.is_unreferenced and kind not in uses.kinds(root):
        return Garbage(kind, folder, 0, 0, 0, f"no materialization has recorded which answers of kind {kind} it uses: all stay")
    with locked(folder):
        # Read under the lock, and after it was waited for: as late as can be.
        used = uses.referenced(root, kind, folder.name).implode() if rule.is_unreferenced else None
        cutoff = rule.cutoff(datetime.now(UTC))
        names = {prefix: listing(folder, prefix) for prefix in (FINAL, ERRORS)}
        dead: dict[str, np.ndarray] = {}
        rows, size, every = 0, 0.0, [name for of_prefix in names.values() for name in of_prefix]
        for done, name in enumerate(every, 1):
            frame = read_columns(folder / name, kind, ["key", ANSWERED_AT])
            is_dead = frame[ANSWERED_AT] < cutoff
            if used is not None:
                is_dead &= ~frame["key"].is_in(used)
            if is_dead.any():
                dead[name] = is_dead.arg_true().to_numpy()
                size += (folder / name).stat().st_size * len(dead[name]) / len(frame)
            rows += len(frame)
            tell(done, len(every))
        for prefix, of_prefix in names.items() if delete else ():
            replace(folder, kind, prefix, [[name] for name in of_prefix if name in dead], dead)
    return Garbage(kind, folder, sum(map(len, dead.values())), rows, round(size))
