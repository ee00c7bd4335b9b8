"""Tombstones: who was forgotten and when, and nothing else about them.

What belongs here: the file ``forgotten.jsonl`` beside the lake. What does not: who reads it (``conversations.ingest`` refuses the rows of
a forgotten user) and what forgetting removes (``removal``).

A tombstone is a fingerprint, so it matches only as long as the salt of the fingerprints (``RLHI_SALT``) is the same. It says with which
salt it was made, by that salt's own fingerprint; who reads with another one gets an error, and not everybody back in. A tombstone that does
not say so was made before tombstones did.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from rlhi_dagster.profiles.salts import fingerprint

FILE = "forgotten.jsonl"
_LOCK = ".forgotten.lock"


def read(root: Path, salt: str | None = None) -> dict[str, datetime]:
    """When each forgotten user was forgotten, by fingerprint.

    Args:
        root: Folder of the outputs.
        salt: With which users are told now; ``None`` where nobody is to be kept out.

    Raises:
        ValueError: A line of the file is no tombstone, or one was made with another salt. Nobody is let in on a guess.
    """
    found, now = _read(root), salt and fingerprint(salt)
    if others := [user for user, tombstone in found.items() if now and tombstone.salt not in (None, now)]:
        raise ValueError(
            f"{root / FILE}: {len(others):,} of {len(found):,} tombstones, that of {others[0]} the first, were made with another salt than "
            "the one in use, so these users would come back: set RLHI_SALT to what it was, or forget them again under the new salt and "
            "take the old lines out of the file"
        )
    return {user: tombstone.forgotten_at for user, tombstone in found.items()}


def add(root: Path, user_id: str, salt: str | None = None) -> datetime:
    """Set a user's tombstone; one that is there stays as it is. Returns when the user was forgotten.

    Written aside and renamed under a lock: several processes may add at once, and readers never see half a file.

    Args:
        root: Folder of the outputs.
        user_id: The user's fingerprint.
        salt: Fingerprint of the salt that it was made with; ``None`` if nobody knows.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(root)
        if user_id not in known:
            known[user_id] = _Tombstone(datetime.now(UTC), salt)
            _write(root / FILE, known)
        return known[user_id].forgotten_at


@dataclass(frozen=True, slots=True)
class _Tombstone:
    """What is left of a forgotten user: when it was, and the fingerprint of the salt; ``None`` in an older file."""

    forgotten_at: datetime
    salt: str | None


def _read(root: Path) -> dict[str, _Tombstone]:
    file = root / FILE
    if not file.is_file():
        return {}
    found: dict[str, _Tombstone] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            found[entry["user_id"]] = _Tombstone(datetime.fromisoformat(entry["forgotten_at"]), entry.get("salt"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}, line {number}, is no tombstone (user_id and forgotten_at): mend or restore the file") from error
    return found


def _write(file: Path, known: dict[str, _Tombstone]) -> None:
    lines = [
        json.dumps({"user_id": user, "forgotten_at": each.forgotten_at.isoformat(), **({"salt": each.salt} if each.salt else {})}) + "\n"
        for user, each in known.items()
    ]
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
