"""Marks on artefacts that were trained on pairs of a forgotten user: weights cannot be filtered, but they can be trained again.

What belongs here: which pairs an artefact was trained on, and the mark. What does not: training (``workers/train_loop.py``, which
writes the list of pairs) and which check is made of the marks (``assets/``).

A mark lies in the artefact's folder and goes with it: an artefact that is trained again, without the pairs, has none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from rlhi_dagster.base.aside import put
from rlhi_dagster.base.failures import DamagedError
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.models import MARK
from rlhi_dagster.training.artefacts import manifest, read_pairs, write_pairs

_LEARNS_FROM_PAIRS = {"sft", "dpo", "kto", "sdpo", "reward"}


@dataclass(frozen=True, slots=True)
class Mark:
    """What of an artefact's training data is gone.

    Attributes:
        artefact: Path below the lake, such as ``checkpoints/dpo_rewrites``.
        gone: Examples of forgotten users that it was trained on; ``None`` if the artefact does not say what it was trained on.
        of: All examples that it was trained on; ``None`` likewise.
        forgotten_at: When the last of the users was forgotten.
    """

    artefact: str
    gone: int | None
    of: int | None
    forgotten_at: str

    def __str__(self) -> str:
        """In words."""
        share = "it does not say on which pairs" if self.gone is None else f"{self.gone:,} of {self.of:,} are of forgotten users"
        return f"{self.artefact}: trained before {self.forgotten_at[:10]}; {share}: train it again"


def marks(lake: Lake) -> list[Mark]:
    """The marks of all artefacts, by path.

    Raises:
        DamagedError: One is not as it was written.
    """
    files = sorted([*Path(lake.root).glob(f"[!.]*/{MARK}"), *Path(lake.root).glob(f"[!.]*/[!.]*/{MARK}")])
    return [_read(file) for file in files]


def _read(file: Path) -> Mark:
    try:
        return Mark(**json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{file} is damaged: it is not the mark that was written", file.parent) from error


def mark_trained(lake: Lake, pair_ids: Collection[str], now: datetime) -> list[Mark]:
    """Mark the checkpoints, the policies between online rounds and the reward model that were trained on pairs; return the marks.

    The pairs go from an artefact's list, too. Marking again changes nothing but the time.
    """
    return [found for folder in _trained(lake, pair_ids) if (found := _mark(lake, folder, pair_ids, now))]


def would_mark(lake: Lake, pair_ids: Collection[str]) -> list[str]:
    """Artefacts that ``mark_trained`` would mark."""
    folders = [(folder, read_pairs(folder)) for folder in _trained(lake, pair_ids)]
    return [str(folder.relative_to(lake.root)) for folder, trained in folders if trained is None or _gone(trained, pair_ids).any()]


def mark(lake: Lake, artefact: str, gone: int | None, of: int | None, now: datetime) -> Mark:
    """Set the mark of an artefact, in the place of one that is there."""
    made = Mark(artefact, gone, of, now.isoformat())
    put(Path(lake.root, artefact, MARK), json.dumps(asdict(made)))
    return made


def mark_more(lake: Lake, artefact: str, gone: int, of: int, now: datetime) -> Mark:
    """Set the mark of an artefact, adding what was forgotten at other times; at the same time it is the same user once more."""
    earlier = _earlier(lake, artefact)
    before = earlier.gone or 0 if earlier and earlier.forgotten_at != now.isoformat() else 0
    return mark(lake, artefact, before + gone, of, now)


def clear(folder: Path) -> None:
    """Take the mark from an artefact that was made again in place."""
    (folder / MARK).unlink(missing_ok=True)


def _trained(lake: Lake, pair_ids: Collection[str]) -> Iterator[Path]:
    """Folders of artefacts that were trained on pairs here, if there are any pairs that matter."""
    by_name = [folder for asset in ("checkpoints", "online_policies") for folder in sorted(lake.artefact_path(asset).glob("[!.]*"))]
    for folder in (lake.artefact_path("reward_model"), *by_name) if pair_ids else ():
        if (found := manifest(folder)) and found["method"] in _LEARNS_FROM_PAIRS:
            yield folder


def _gone(trained: pl.DataFrame, pair_ids: Collection[str]) -> pl.Series:
    """Which pairs that an artefact was trained on are among ``pair_ids``."""
    return trained["pair_id"].is_in(pl.Series(sorted(pair_ids), dtype=pl.String()).implode())


def _mark(lake: Lake, folder: Path, pair_ids: Collection[str], now: datetime) -> Mark | None:
    artefact, trained = str(folder.relative_to(lake.root)), read_pairs(folder)
    if trained is None:
        return mark(lake, artefact, None, None, now)
    is_gone, of = _gone(trained, pair_ids), len(trained)
    gone = int(is_gone.sum())
    if not gone:
        return None
    earlier = _earlier(lake, artefact)
    # The list has what is left; how many there were is in the earlier mark.
    all_pairs = earlier.of if earlier and earlier.of is not None else of
    made = mark(lake, artefact, all_pairs - of + gone, all_pairs, now)
    write_pairs(folder, trained.filter(~is_gone))
    return made


def _earlier(lake: Lake, artefact: str) -> Mark | None:
    return next((each for each in marks(lake) if each.artefact == artefact), None)


def marks_of(lake: Lake, artefact: str) -> list[Mark]:
    """Marks of an artefact and of all its partitions: a mark stays until what carries it is trained again."""
    return [mark for mark in marks(lake) if mark.artefact.split("/")[0] == artefact]


def trained_on_nobody_forgotten(marked: Sequence[Mark]) -> Finding:
    """No artefact was trained on pairs of a user who was forgotten since.

    Args:
        marked: The marks of artefacts; one that does not say what it was trained on does not pass either.
    """
    gone = {f"pairs_gone/{mark.artefact}": mark.gone for mark in marked if mark.gone is not None}
    return Finding(not marked, {"artefacts_to_train_again": [mark.artefact for mark in marked], **gone})
