"""The truth about the town's users, for tests and for the judge named ``town``; nothing else may read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rlhi_dagster.conversations.ingest import user_id
from rlhi_dagster.simulation.style import ASPECTS, Style, read, topic_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reply fares with its user.

    Attributes:
        preferences_met: Share of the user's style preferences that the reply meets; 0 for broken text.
        is_malformed: The reply is not a legible reply to the request.
    """

    preferences_met: float
    is_malformed: bool


def preferences(file: Path, salt: str) -> dict[str, Style]:
    """Style preference by salted user fingerprint."""
    frame = pl.read_parquet(file)
    return {
        user_id("\n".join((row["hashed_ip"], row["accept-language"], row["user-agent"])), "", salt): Style(
            *(row[aspect] for aspect in ASPECTS)
        )
        for row in frame.to_dicts()
    }


def verdict(preference: Style, request: str, reply: str) -> Verdict:
    """Judge one reply to an opening request by the user's hidden preference."""
    topic = topic_of(request)
    reading = read(reply, topic) if topic else read(reply)
    if reading is None:
        return Verdict(0.0, True)
    return Verdict(1 - len(preference.unmet(reading.style)) / len(ASPECTS), False)
