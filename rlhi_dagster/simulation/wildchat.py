"""The layout in which the simulations write: rows of WildChat-1M, and beside them a file of what users did outright.

What belongs here: columns, and how messages become a row. What does not: what anybody says or clicks (``town``, ``village``).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.sources.records import FeedbackKind, Giver
from rlhi_dagster.feedback import Feedback

_TIME = pl.Datetime("us", "UTC")
_HEADER = pl.Struct({"accept-language": pl.String(), "user-agent": pl.String()})
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_DETOXIFY = ("identity_attack", "insult", "obscene", "severe_toxicity", "sexual_explicit", "threat", "toxicity")

WILDCHAT_SCHEMA = pl.Schema(
    {
        "conversation_hash": pl.String(),
        "model": pl.String(),
        "timestamp": _TIME,
        "conversation": pl.List(
            pl.Struct(
                {
                    "content": pl.String(),
                    "country": pl.String(),
                    "hashed_ip": pl.String(),
                    "header": _HEADER,
                    "language": pl.String(),
                    "redacted": pl.Boolean(),
                    "role": pl.String(),
                    "state": pl.String(),
                    "timestamp": _TIME,
                    "toxic": pl.Boolean(),
                    "turn_identifier": pl.Int64(),
                }
            )
        ),
        "turn": pl.Int64(),
        "language": pl.String(),
        "openai_moderation": pl.List(
            pl.Struct(
                {
                    "categories": pl.Struct({name: pl.Boolean() for name in _CATEGORIES}),
                    "category_scores": pl.Struct({name: pl.Float64() for name in _CATEGORIES}),
                    "flagged": pl.Boolean(),
                }
            )
        ),
        "detoxify_moderation": pl.List(pl.Struct({name: pl.Float64() for name in _DETOXIFY})),
        "toxic": pl.Boolean(),
        "redacted": pl.Boolean(),
        "state": pl.String(),
        "country": pl.String(),
        "hashed_ip": pl.String(),
        "header": _HEADER,
    }
)
"""WildChat-1M's columns, as published."""

CLICKS = pl.Schema(
    {
        "conversation_id": pl.String(),
        "message_index": pl.Int32(),
        "kind": pl.String(),
        "value": pl.Float64(),
        "text": pl.String(),
        "given_at": TIME,
        "giver": pl.String(),
    }
)
"""Columns of a file of explicit feedback."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message with, for a follow-up, what it says about the reply before it."""

    role: str
    content: str
    label: Feedback | None = None


class Click(NamedTuple):
    """One click, and the truth about it.

    Attributes:
        conversation_id: Whose message it is on.
        message_index: Which one.
        kind: A `FeedbackKind`.
        value: The thumb.
        text: The edited reply, or the one that was left.
        given_at: When.
        is_noise: Whether it says something else than the hidden preference: the wrong thumb, or a pair whose preferred side meets no more.
    """

    conversation_id: str
    message_index: int
    kind: FeedbackKind
    value: float | None
    text: str | None
    given_at: datetime
    is_noise: bool

    def row(self) -> dict[str, Any]:
        """As it lies beside the logs."""
        given = {name: value for name, value in self._asdict().items() if name != "is_noise"}
        return {**given, "kind": self.kind.value, "giver": Giver.END_USER.value}


def connection(rng: random.Random, number: int, place: str) -> dict[str, str]:
    """Address and headers of a user of ``place``; neighbours share an address now and then, and the header tells them apart."""
    agent = rng.choice(("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "Mozilla/5.0 (Macintosh)"))
    language = rng.choice(("en-US,en;q=0.9", "en-GB,en;q=0.8", "es-ES,es;q=0.9,en;q=0.7"))
    address = hashlib.sha256(f"{place.lower()}-{number - number % 20 if number % 20 == 1 else number}".encode()).hexdigest()
    return {"hashed_ip": address, "accept-language": language, "user-agent": f"{agent} {place}/{number}"}


def row(
    messages: Sequence[Message], user: Mapping[str, str], started: datetime, rng: random.Random, place: str, models: Sequence[str]
) -> dict[str, Any]:
    """A conversation in ``WILDCHAT_SCHEMA``.

    Args:
        messages: What was said.
        user: See ``connection``.
        started: When the conversation began.
        rng: Source of all chance.
        place: Named as the country.
        models: One of them is said to have replied.
    """
    clock = started.replace(microsecond=0)
    header = {"accept-language": user["accept-language"], "user-agent": user["user-agent"]}
    said: list[dict[str, Any]] = []
    for message in messages:
        clock += timedelta(seconds=rng.randrange(5, 90))
        is_user = message.role == "user"
        said.append(
            {
                "content": message.content,
                "country": place if is_user else None,
                "hashed_ip": user["hashed_ip"] if is_user else None,
                "header": header if is_user else None,
                "language": "English",
                "redacted": False,
                "role": message.role,
                "state": None,
                "timestamp": None if is_user else clock,
                "toxic": False,
                "turn_identifier": rng.randrange(10**6),
            }
        )
    return {
        "conversation_hash": f"{rng.getrandbits(128):032x}",
        "model": rng.choice(models),
        "timestamp": clock,
        "conversation": said,
        "turn": sum(message.role == "user" for message in messages),
        "language": "English",
        "openai_moderation": [],
        "detoxify_moderation": [],
        "toxic": False,
        "redacted": False,
        "state": None,
        "country": place,
        "hashed_ip": user["hashed_ip"],
        "header": header,
    }
