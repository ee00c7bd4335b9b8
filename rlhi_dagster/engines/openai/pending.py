"""Batches that a server works on, remembered on disk, so that a run that was killed finds them again.

One JSON file per batch, replaced atomically. It stays after the batch has ended, since the run may be killed before it keeps what it
read: then the next run reads it again. After as many days as servers keep results the file goes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

_SECONDS_KEPT = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch.

    Attributes:
        token: Our word for it.
        owner: Server and model.
        submitted_at: Seconds since 1970.
        keys: Of the calls that are answered in it, or may be.
        batch_id: The server's word for it; ``None`` while it is being submitted.
    """

    token: str
    owner: str
    submitted_at: float
    keys: list[str]
    batch_id: str | None = None


class PendingBatches:
    """The remembered batches of one server and model in a folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner = folder, owner

    def new(self, keys: list[str]) -> Pending:
        """Remember a batch that is about to be submitted."""
        pending = Pending(uuid4().hex, self.owner, time.time(), keys)
        self.remember(pending)
        return pending

    def remember(self, pending: Pending) -> None:
        """Write what is known of a batch; one without keys is forgotten."""
        if not pending.keys:
            self.forget(pending)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self._file(pending).with_suffix(".partial")
        with aside.open("w") as stream:
            json.dump(asdict(pending), stream)
            stream.flush()
            os.fsync(stream.fileno())
        aside.rename(self._file(pending))

    def forget(self, pending: Pending) -> None:
        """No longer look for it."""
        self._file(pending).unlink(missing_ok=True)

    def load(self) -> list[Pending]:
        """All that are remembered, oldest first."""
        found = [Pending(**json.loads(file.read_text())) for file in self.folder.glob("*.json")]
        mine = [pending for pending in found if pending.owner == self.owner]
        for old in [pending for pending in mine if pending.submitted_at < time.time() - _SECONDS_KEPT]:
            self.forget(old)
            mine.remove(old)
        return sorted(mine, key=lambda pending: pending.submitted_at)

    def _file(self, pending: Pending) -> Path:
        return self.folder / f"{pending.token}.json"
