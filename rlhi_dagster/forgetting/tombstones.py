"""Tombstones: who was forgotten and when, and nothing else about them.

What belongs here: the file ``forgotten.jsonl`` beside the lake. What does not: who reads it (``conversations.ingest`` refuses the rows of
a forgotten user) and what forgetting removes (``removal``).

A tombstone is a fingerprint, so it matches only as long as the salt of the fingerprints (``RLHI_SALT``) is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

FILE = "forgotten.jsonl"
_LOCK = ".forgotten.lock"


def read(root: Path) -> dict[str, datetime]:
    """When each forgotten user was forgotten, by fingerprint.

    Raises:
        ValueError: A line of the file is no tombstone; the message names it. Nobody is let in on a guess.
    """
    file = root / FILE
    if not file.is_file():
        return {}
    found: dict[str, datetime] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            found[entry["user_id"]] = datetime.fromisoformat(entry["forgotten_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}, line {number}, is no tombstone (user_id and forgotten_at): mend or restore the file") from error
    return found


def add(root: Path, user_id: str) -> datetime:
    """Set a user's tombstone; one that is there stays as it is. Returns when the user was forgotten.

    Written aside and renamed under a lock: several processes may add at once, and readers never see half a file.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read(root)
        if user_id not in known:
            known[user_id] = datetime.now(UTC)
            _write(root / FILE, known)
        return known[user_id]


def _write(file: Path, known: dict[str, datetime]) -> None:
    lines = [json.dumps({"user_id": user, "forgotten_at": moment.isoformat()}) + "\n" for user, moment in known.items()]
    partial = file.with_name(f".{file.name}.{uuid4().hex}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
