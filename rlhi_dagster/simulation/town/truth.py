"""The truth about the town's users, for tests and for the judge named ``town``; nothing else may read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from rlhi_dagster.conversations.ingest import user_id
from rlhi_dagster.simulation import Verdict
from rlhi_dagster.simulation.town.dialogue import SMALL_TALK
from rlhi_dagster.simulation.town.style import ASPECTS, Style, read, topic_of


def preferences(file: Path, salt: str) -> dict[str, Style]:
    """Style preference by salted user fingerprint."""
    frame = pl.read_parquet(file)
    return {
        user_id("\n".join((row["hashed_ip"], row["accept-language"], row["user-agent"])), "", salt): Style(
            *(row[aspect] for aspect in ASPECTS)
        )
        for row in frame.to_dicts()
    }


def verdict_on(preference: Style, messages: Sequence[Mapping[str, str]], reply: str) -> Verdict | None:
    """Judge one reply to a conversation's last message; ``None`` where that is small talk, to which no style belongs.

    What the conversation is about is what its latest message that names a topic names.
    """
    said = [message["content"] for message in messages if message["role"] == "user"]
    if said[-1] in SMALL_TALK:
        return None
    return verdict(preference, next((text for text in reversed(said) if topic_of(text)), said[-1]), reply)


def verdict(preference: Style, request: str, reply: str) -> Verdict:
    """Judge one reply to an opening request by the user's hidden preference."""
    topic = topic_of(request)
    reading = read(reply, topic) if topic else read(reply)
    if reading is None:
        return Verdict(0.0, True)
    return Verdict(1 - len(preference.unmet(reading.style)) / len(ASPECTS), False)
