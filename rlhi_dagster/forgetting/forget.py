"""Forgetting: everything that comes from a user is taken out of the outputs.

What belongs here: what would go, and the order in which it goes. What does not: finding it (``footprint``, ``traces``), how a file is
rewritten (``lake``, ``store/erase.py``) and the command (``command``).

The tombstone comes first, so that no later run lets the user in again; then what cannot be found without the tables; the tables last.
Killed at any moment, forgetting again does the rest. Do not forget while a run is under way: it would bring back what it has read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlhi_dagster.base import exports, owned
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.sources.rows import SPILLED
from rlhi_dagster.forgetting import marks, requests_about, tombstones, traces
from rlhi_dagster.forgetting.footprint import Footprint, footprint, tables
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.store import erase

CLASSIFIER, REPORT = "feedback_classifier", "report"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where everything lies.

    Attributes:
        root: Folder of all outputs.
        labelled: Conversations that the feedback classifier was trained on here; empty where it is the packaged one.
        writer: How personas are written.
        salt: Fingerprint of the salt that users are told with; ``None`` if nobody knows.
    """

    root: Path
    labelled: frozenset[str] = frozenset()
    writer: PersonaSettings = field(default_factory=PersonaSettings)
    salt: str | None = None

    @property
    def lake(self) -> Lake:
        """The tables and artefacts."""
        return Lake(root=str(self.root / "lake"))

    @property
    def store(self) -> Path:
        """The response store."""
        return self.root / "responses"


@dataclass(frozen=True, slots=True)
class Traces:
    """What goes.

    Attributes:
        found: What names the user.
        rows: Rows, and those among them of other users, by table.
        keys: Of the response store.
        answers: Answers by kind and folder of the model.
        artefacts: Those that were trained on data of the user, and get a mark.
        files: Rows handed to workers, leftovers of killed runs, and exports among the outputs.
        has_report: Whether there is a report, which shows requests of users.
    """

    found: Footprint
    rows: Mapping[str, tuple[int, int]]
    keys: frozenset[str]
    answers: Mapping[tuple[str, str], int]
    artefacts: list[str]
    files: int
    has_report: bool

    @property
    def is_nothing(self) -> bool:
        """Whether the outputs hold nothing of the user."""
        return not (self.rows or self.answers or self.artefacts)


def look(outputs: Outputs, user_id: str) -> Traces:
    """Find everything that forgetting a user would remove or mark."""
    lake, found = outputs.lake, footprint(outputs.lake, user_id)
    called, shared = found.calls(lake)
    own, others = found.texts(lake)
    keys = called | traces.vectors(own, others) | traces.answers(lake, outputs.store, found, others, shared)
    keys |= requests_about.asked_about(lake, outputs.store, user_id, outputs.writer) - shared
    artefacts = marks.would_mark(lake, _pairs(found)) + ([CLASSIFIER] if _learned(outputs, found) else [])
    report = lake.artefact_path(REPORT).is_dir()
    return Traces(found, found.rows(lake), keys, erase.count(outputs.store, keys), artefacts, len(list(_files(outputs))), report)


def forget(outputs: Outputs, user_id: str) -> Traces:
    """Forget a user; what was there of them.

    Raises:
        DamagedSegmentError: A segment of the store cannot be read; what was not removed yet is there for the next attempt.
    """
    now = tombstones.add(outputs.root, user_id, outputs.salt)
    lake, gone = outputs.lake, look(outputs, user_id)
    for path in list(_files(outputs)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    owned.sweep(Path(tempfile.gettempdir()).glob(f"{SPILLED}*"))
    erase.remove(outputs.store, gone.keys)
    marks.mark_trained(lake, _pairs(gone.found), now)
    if learned := _learned(outputs, gone.found):
        marks.mark_more(lake, CLASSIFIER, learned, len(outputs.labelled), now)
    if gone.has_report:
        shutil.rmtree(lake.artefact_path(REPORT))
    for name, frame in tables(lake):
        lake.drop_rows(name, gone.found.is_theirs(frame.collect_schema()))
    return gone


def _pairs(found: Footprint) -> Collection[str]:
    return found.ids.get("pair", frozenset()) | found.borrowed


def _learned(outputs: Outputs, found: Footprint) -> int:
    """Conversations of the user that the feedback classifier was trained on."""
    if not outputs.lake.artefact_path(CLASSIFIER).is_dir():
        return 0
    return len(outputs.labelled & found.ids.get("conversation", frozenset()))


def _files(outputs: Outputs) -> Iterator[Path]:
    """What holds rows of users outside of tables and store: job files, what killed runs left, and exports among the outputs."""
    yield from (path for path in (outputs.root / "work").rglob("*") if path.is_file())
    for folder in (Path(outputs.lake.root), outputs.store):
        yield from folder.rglob(".*.partial")
    yield from Path(outputs.lake.root).rglob(".*.training")
    yield from outputs.store.rglob("*.partial")
    yield from (path for path in exports.made(outputs.root) if path.is_relative_to(outputs.root.absolute()))
