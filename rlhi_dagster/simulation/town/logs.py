"""The town's logs: users over several months, in WildChat-1M's column schema, with template traffic and broken rows.

One seed determines everything. The truth (preferences by connection, labels by message, which clicks are noise) comes back
beside the logs, never in them. Clicks lie beside the logs, too, in a file of explicit feedback.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rlhi_dagster.simulation.town.clicks import Clicking, clicks
from rlhi_dagster.simulation.town.content import TOPICS
from rlhi_dagster.simulation.town.dialogue import Habits, converse
from rlhi_dagster.simulation.town.style import ASPECTS, Style
from rlhi_dagster.simulation.wildchat import WILDCHAT_SCHEMA, Click, Message, connection, row

_PLACE = "Town"
_MODELS = ("townsman-1", "townsman-2")

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
        clicking: What users do outright.
    """

    seed: int = 7
    users: int = 300
    first_month: str = "2023-04"
    months: int = 6
    template_share: float = 0.08
    broken_share: float = 0.03
    clicking: Clicking = field(default_factory=Clicking)


@dataclass(frozen=True, slots=True)
class Town:
    """The logs and, apart from them, the truth.

    Attributes:
        logs: Rows in ``WILDCHAT_SCHEMA``.
        preferences: ``hashed_ip``, header fields and a column per style aspect, one row a user; those of broken rows are last.
        labels: ``conversation_hash``, ``message_index``, ``label``, one row a follow-up of an ordinary conversation.
        clicks: On replies of ordinary conversations, each with whether it is noise.
        broken: How many rows of each kind of damage.
    """

    logs: pl.DataFrame
    preferences: pl.DataFrame
    labels: pl.DataFrame
    clicks: list[Click]
    broken: dict[str, int]


def build(settings: TownSettings) -> Town:
    """Simulate the town."""
    rng = random.Random(settings.seed)
    start = datetime.strptime(settings.first_month, "%Y-%m").replace(tzinfo=UTC)
    span = timedelta(days=30 * settings.months - 3)
    rows: list[dict[str, Any]] = []
    wanted: list[Style] = []
    preferences: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for number in range(settings.users):
        user = connection(rng, number, _PLACE)
        preference = Style.draw(rng)
        preferences.append({**user, **{aspect: preference.value(aspect) for aspect in ASPECTS}})
        conversations = min(40, max(2, round(rng.lognormvariate(2.0, 0.8))))
        # A user appears at some moment and stays for the rest of the span.
        arrival = rng.random() ** 2 * 0.8
        for moment in sorted(arrival + (1 - arrival) * rng.random() for _ in range(conversations)):
            messages = converse(preference, Habits(), rng)
            said = row(messages, user, start + moment * span, rng, _PLACE, _MODELS)
            rows.append(said)
            wanted.append(preference)
            labels += [
                {"conversation_hash": said["conversation_hash"], "message_index": index, "label": str(message.label)}
                for index, message in enumerate(messages)
                if message.label is not None
            ]
    ordinary = len(rows)
    clicked = clicks(zip(rows, wanted, strict=True), settings.clicking, random.Random(f"clicks {settings.seed}"))
    painters = [connection(rng, settings.users + number, _PLACE) for number in range(6)]
    for number in range(round(ordinary * settings.template_share)):
        thing = rng.choice(TOPICS).name[0]
        request = _TEMPLATE.format(number=number, thing=thing)
        reply = f"/paint {thing}, soft morning light, warm colours, in the style of a watercolour"
        messages = [Message("user", request), Message("assistant", reply)]
        rows.append(row(messages, rng.choice(painters), start + rng.random() * span, rng, _PLACE, _MODELS))
    broken: dict[str, int] = {}
    for number in range(round(ordinary * settings.broken_share)):
        damage = _BROKEN[number % len(_BROKEN)]
        broken[damage] = broken.get(damage, 0) + 1
        user = connection(rng, settings.users + len(painters) + number, _PLACE)
        preference = Style.draw(rng)
        preferences.append({**user, **{aspect: preference.value(aspect) for aspect in ASPECTS}})  # some of the damage is mended
        whole = row(converse(preference, Habits(), rng), user, start + rng.random() * span, rng, _PLACE, _MODELS)
        rows.append(_damage(whole, damage, rows[rng.randrange(ordinary)]))
    logs = pl.DataFrame(rows, schema=WILDCHAT_SCHEMA).sample(fraction=1.0, shuffle=True, seed=settings.seed)
    return Town(logs, pl.DataFrame(preferences), pl.DataFrame(labels), clicked, broken)


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
