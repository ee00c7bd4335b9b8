"""The town's logs: users over several months, in WildChat-1M's column schema, with template traffic and broken rows.

One seed determines everything. The truth (preferences by connection, labels by message) comes back beside the logs, never in them.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rlhi_dagster.simulation.content import TOPICS
from rlhi_dagster.simulation.dialogue import Habits, Message, converse
from rlhi_dagster.simulation.style import ASPECTS, Style

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

_TEMPLATE = (
    "As a prompt generator for a picture service called Paintbox, you write one line that starts with /paint and describes the scene in "
    "detail, with the subject, the light, the colours and the style, and nothing else. The subject of picture number {number} is: {thing}"
)
_BROKEN = (
    "no_messages",
    "no_id",
    "unknown_role",
    "assistant_first",
    "empty_message",
    "too_long",
    "from_the_past",
    "from_the_future",
    "duplicate",
    "toxic",
    "unanswered",
)


@dataclass(frozen=True, slots=True)
class TownSettings:
    """Size and span of the town.

    Attributes:
        seed: Determines every byte.
        users: Connections with a style preference.
        first_month: Start of the span, ``YYYY-MM``.
        months: Length of the span.
        template_share: Conversations that are template traffic, relative to the ordinary ones.
        broken_share: Broken rows, relative to the ordinary ones.
    """

    seed: int = 7
    users: int = 300
    first_month: str = "2023-04"
    months: int = 6
    template_share: float = 0.08
    broken_share: float = 0.03


@dataclass(frozen=True, slots=True)
class Town:
    """The logs and, apart from them, the truth.

    Attributes:
        logs: Rows in ``WILDCHAT_SCHEMA``.
        preferences: ``hashed_ip``, header fields and a column per style aspect, one row a user.
        labels: ``conversation_hash``, ``message_index``, ``label``, one row a follow-up of an ordinary conversation.
        broken: How many rows of each kind of damage.
    """

    logs: pl.DataFrame
    preferences: pl.DataFrame
    labels: pl.DataFrame
    broken: dict[str, int]


def build(settings: TownSettings) -> Town:
    """Simulate the town."""
    rng = random.Random(settings.seed)
    start = datetime.strptime(settings.first_month, "%Y-%m").replace(tzinfo=UTC)
    span = timedelta(days=30 * settings.months - 3)
    rows: list[dict[str, Any]] = []
    preferences: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for number in range(settings.users):
        user = _connection(rng, number)
        preference = Style.draw(rng)
        preferences.append({**user, **{aspect: preference.value(aspect) for aspect in ASPECTS}})
        conversations = min(40, max(2, round(rng.lognormvariate(2.0, 0.8))))
        # A user appears at some moment and stays for the rest of the span.
        arrival = rng.random() ** 2 * 0.8
        for moment in sorted(arrival + (1 - arrival) * rng.random() for _ in range(conversations)):
            messages = converse(preference, Habits(), rng)
            row = _row(messages, user, start + moment * span, rng)
            rows.append(row)
            labels += [
                {"conversation_hash": row["conversation_hash"], "message_index": index, "label": str(message.label)}
                for index, message in enumerate(messages)
                if message.label is not None
            ]
    ordinary = len(rows)
    painters = [_connection(rng, settings.users + number) for number in range(6)]
    for number in range(round(ordinary * settings.template_share)):
        thing = rng.choice(TOPICS).name[0]
        request = _TEMPLATE.format(number=number, thing=thing)
        reply = f"/paint {thing}, soft morning light, warm colours, in the style of a watercolour"
        messages = [Message("user", request), Message("assistant", reply)]
        rows.append(_row(messages, rng.choice(painters), start + rng.random() * span, rng))
    broken: dict[str, int] = {}
    for number in range(round(ordinary * settings.broken_share)):
        damage = _BROKEN[number % len(_BROKEN)]
        broken[damage] = broken.get(damage, 0) + 1
        user = _connection(rng, settings.users + len(painters) + number)
        whole = _row(converse(Style.draw(rng), Habits(), rng), user, start + rng.random() * span, rng)
        rows.append(_damage(whole, damage, rows[rng.randrange(ordinary)]))
    logs = pl.DataFrame(rows, schema=WILDCHAT_SCHEMA).sample(fraction=1.0, shuffle=True, seed=settings.seed)
    return Town(logs, pl.DataFrame(preferences), pl.DataFrame(labels), broken)


def _connection(rng: random.Random, number: int) -> dict[str, str]:
    agent = rng.choice(("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "Mozilla/5.0 (Macintosh)"))
    language = rng.choice(("en-US,en;q=0.9", "en-GB,en;q=0.8", "es-ES,es;q=0.9,en;q=0.7"))
    # Neighbours share an address now and then; the header tells them apart.
    address = hashlib.sha256(f"town-{number - number % 20 if number % 20 == 1 else number}".encode()).hexdigest()
    return {"hashed_ip": address, "accept-language": language, "user-agent": f"{agent} Town/{number}"}


def _row(messages: list[Message], user: dict[str, str], started: datetime, rng: random.Random) -> dict[str, Any]:
    clock = started.replace(microsecond=0)
    header = {"accept-language": user["accept-language"], "user-agent": user["user-agent"]}
    said: list[dict[str, Any]] = []
    for message in messages:
        clock += timedelta(seconds=rng.randrange(5, 90))
        is_user = message.role == "user"
        said.append(
            {
                "content": message.content,
                "country": "Town" if is_user else None,
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
        "model": rng.choice(("townsman-1", "townsman-2")),
        "timestamp": clock,
        "conversation": said,
        "turn": sum(message.role == "user" for message in messages),
        "language": "English",
        "openai_moderation": [],
        "detoxify_moderation": [],
        "toxic": False,
        "redacted": False,
        "state": None,
        "country": "Town",
        "hashed_ip": user["hashed_ip"],
        "header": header,
    }


def _damage(row: dict[str, Any], damage: str, other: dict[str, Any]) -> dict[str, Any]:
    first = row["conversation"][0]
    match damage:
        case "no_messages":
            row["conversation"] = None
        case "no_id":
            row["conversation_hash"] = None
        case "unknown_role":
            first["role"] = "narrator"
        case "assistant_first":
            row["conversation"] = row["conversation"][1:]
        case "empty_message":
            first["content"] = "  "
        case "too_long":
            first["content"] = "very " * 20_000 + first["content"]
        case "from_the_past":
            row["timestamp"] = datetime(1970, 1, 1, tzinfo=UTC)
        case "from_the_future":
            row["timestamp"] = datetime(2223, 4, 1, tzinfo=UTC)
        case "duplicate":
            row = dict(other)
        case "toxic":
            row["toxic"] = True
        case "unanswered":
            row["conversation"] = row["conversation"][:1]
    return row
