"""The truth about the village's users, for tests, benchmarks and the judge named ``village``; nothing else may read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from rlhi_dagster.base.text_health import flaw
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.simulation import Verdict
from rlhi_dagster.simulation.village.logs import fingerprint
from rlhi_dagster.simulation.village.preferences import VALUES, Preference, unmet

Versions = Sequence[tuple[datetime | None, Preference]]
"""What a user prefers, from which moment on; from ``None`` on: at first."""


def preferences(file: Path, salt: str) -> dict[str, Versions]:
    """Preferences by salted user fingerprint."""
    found: dict[str, list[tuple[datetime | None, Preference]]] = {}
    for row in pl.read_parquet(file).to_dicts():
        wanted = {aspect: row[aspect.value] for aspect in VALUES if row[aspect.value] is not None}
        found.setdefault(fingerprint(row, salt), []).append((row["valid_from"], wanted))
    return {user: sorted(versions, key=lambda version: version[0] is not None) for user, versions in found.items()}


def preference_at(versions: Versions, moment: datetime) -> Preference:
    """What a user prefers at a moment."""
    return [wanted for since, wanted in versions if since is None or since <= moment][-1]


def verdict(preference: Mapping[Aspect, str], request: str, reply: str) -> Verdict:
    """Judge one reply to an opening request by the user's hidden preference; a reply that its limit cut is no broken text."""
    if flaw(request, reply, has_ended=True) is not None:
        return Verdict(0.0, True)
    return Verdict(1 - len(unmet(preference, reply)) / len(preference), False)
