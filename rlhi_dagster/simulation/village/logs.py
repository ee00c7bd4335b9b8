"""The village's logs: users over some months in WildChat-1M's column schema, given the replies that a language model wrote.

One seed and the replies determine everything. The truth comes back beside the logs, never in them: preferences by user and time, what each
conversation is about, and what users meant. What belongs here: users, topics, times and rows. What does not: a conversation
(``dialogue.py``), and writing replies (``__main__.py``).

Users who are not trained on (a function of their fingerprint, see ``conversations.splits``) have two things that training users never have:
combinations of preferences, and topics.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations.ingest import user_id
from rlhi_dagster.conversations.splits import Split, SplitSettings, split_of
from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.simulation.village import preferences
from rlhi_dagster.simulation.village.content import ALL_TOPICS, Topic
from rlhi_dagster.simulation.village.dialogue import Dialogue, Habits, Reply, converse
from rlhi_dagster.simulation.village.preferences import VALUES, Preference
from rlhi_dagster.simulation.wildchat import CLICKS, WILDCHAT_SCHEMA, Click, connection, row

PLACE = "Village"
MODEL = "SmolLM2-135M-Instruct"
SALT = "the-village-is-public"
"""The public salt of the profile ``village``, by which its users' fingerprints are made."""
_ASPECTS = {aspect.value: pl.String() for aspect in VALUES}

PREFERENCES = pl.Schema(
    {"hashed_ip": pl.String(), "accept-language": pl.String(), "user-agent": pl.String(), "temperament": pl.String()}
    | {"valid_from": TIME, "is_held_out_combination": pl.Boolean(), **_ASPECTS}
)
"""The truth about users: a row for each and one more for who changes; of an aspect that somebody does not care about the value is null."""
CONVERSATIONS = pl.Schema({"conversation_hash": pl.String(), "topic": pl.String(), "kind": pl.String(), "is_held_out_topic": pl.Boolean()})
"""The truth about conversations: what the opening request is about."""
LABELS = pl.Schema(
    {"conversation_hash": pl.String(), "message_index": pl.Int64(), "label": pl.String()}
    | {"manner": pl.String(), "aspect": pl.String(), "value": pl.String()}
)
"""The truth about follow-ups; ``manner``, ``aspect`` and ``value`` of feedback alone."""
TOLD = pl.Schema({"conversation_hash": pl.String(), "message_index": pl.Int64(), "kind": pl.String(), "is_noise": pl.Boolean()})
"""The truth about what users did outright."""


@dataclass(frozen=True, slots=True)
class VillageSettings:
    """Size and span of the village.

    Attributes:
        seed: Determines everything but the replies.
        users: How many.
        fewest: Conversations of a user.
        most: Conversations of a user.
        first_month: Start of the span, ``YYYY-MM``.
        months: Length of the span.
        split: Shares of users that the profile keeps from training; their sum must be the profile's.
        held_out_topics: Share of topics that only those users ask about.
        changes: Users who change a preference once.
        habits: How users and assistant behave.
    """

    seed: int = 11
    users: int = 84
    fewest: int = 3
    most: int = 8
    first_month: str = "2024-01"
    months: int = 3
    split: SplitSettings = field(default_factory=lambda: SplitSettings(tuning=0.15, test=0.25))
    held_out_topics: float = 0.2
    changes: float = 0.15
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True, slots=True)
class Village:
    """The logs and, apart from them, the truth.

    Attributes:
        logs: Rows in ``WILDCHAT_SCHEMA``, of complete conversations.
        clicks: Rows in ``CLICKS``.
        preferences: Rows in ``PREFERENCES``.
        conversations: Rows in ``CONVERSATIONS``.
        labels: Rows in ``LABELS``.
        told: Rows in ``TOLD``.
        missing: Replies that must be written before the other conversations go on.
    """

    logs: pl.DataFrame
    clicks: pl.DataFrame
    preferences: pl.DataFrame
    conversations: pl.DataFrame
    labels: pl.DataFrame
    told: pl.DataFrame
    missing: list[ChatRequest]


def build(settings: VillageSettings, reply: Reply) -> Village:
    """Simulate the village as far as its replies are there; what is missing does not change the rest."""
    start = datetime.strptime(settings.first_month, "%Y-%m").replace(tzinfo=UTC)
    span = timedelta(days=30 * settings.months - 3)
    common, kept = topics(settings)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("logs", "clicks", "preferences", "conversations", "labels", "told")}
    missing: list[ChatRequest] = []
    for number in range(settings.users):
        rng = random.Random(f"{settings.seed} user {number}")
        # Neighbours do not share addresses here, so that a user's split is a function of their own fingerprint.
        user = connection(rng, 20 * number, PLACE)
        is_trained_on = split_of(fingerprint(user), settings.split) is Split.TRAIN
        versions = _versions(settings, rng, is_trained_on=is_trained_on)
        moments = sorted(rng.random() for _ in range(rng.randint(settings.fewest, settings.most)))
        starts = [start + moment * span for moment in moments]
        change = starts[len(starts) // 2]
        for version, (temperament, wanted) in enumerate(versions):
            is_held_out = preferences.has_held_out_combination(wanted)
            known = {"temperament": temperament, "valid_from": change if version else None, "is_held_out_combination": is_held_out}
            rows["preferences"].append({**user, **known, **{aspect.value: wanted.get(aspect) for aspect in VALUES}})
        for place, started in enumerate(starts):
            draw = random.Random(f"{settings.seed} user {number} conversation {place}")
            pool = common if is_trained_on or draw.random() < 0.5 else kept
            topic, other = draw.sample(pool, 2)
            wanted = versions[-1][1] if started >= change else versions[0][1]
            said = converse(wanted, topic, other, settings.habits, draw, reply)
            if said.missing is not None:
                missing.append(said.missing)
            else:
                _tell(rows, said, row(said.messages, user, started, draw, PLACE, (MODEL,)), topic, is_held_out=pool is kept, draw=draw)
    return Village(
        pl.DataFrame(rows["logs"], schema=WILDCHAT_SCHEMA).sample(fraction=1.0, shuffle=True, seed=settings.seed),
        pl.DataFrame(rows["clicks"], schema=CLICKS),
        pl.DataFrame(rows["preferences"], schema=PREFERENCES),
        pl.DataFrame(rows["conversations"], schema=CONVERSATIONS),
        pl.DataFrame(rows["labels"], schema=LABELS),
        pl.DataFrame(rows["told"], schema=TOLD),
        missing,
    )


def topics(settings: VillageSettings) -> tuple[list[Topic], list[Topic]]:
    """Topics that everybody asks about, and those that are kept from training users: of each kind the same share."""
    rng = random.Random(f"{settings.seed} topics")
    common: list[Topic] = []
    kept: list[Topic] = []
    for kind in dict.fromkeys(topic.kind for topic in ALL_TOPICS):
        of_kind = [topic for topic in ALL_TOPICS if topic.kind is kind]
        chosen = set(rng.sample(of_kind, round(settings.held_out_topics * len(of_kind))))
        kept += [topic for topic in of_kind if topic in chosen]
        common += [topic for topic in of_kind if topic not in chosen]
    return common, kept


def fingerprint(user: Mapping[str, str], salt: str = SALT) -> str:
    """The fingerprint that ingestion gives a user of ``wildchat.connection``."""
    return user_id("\n".join((user["hashed_ip"], user["accept-language"], user["user-agent"])), "", salt)


def _versions(settings: VillageSettings, rng: random.Random, *, is_trained_on: bool) -> list[tuple[str, Preference]]:
    """What a user prefers at first and, of some, later."""

    def allowed(preference: Mapping[Aspect, str]) -> bool:
        return not (is_trained_on and preferences.has_held_out_combination(preference))

    temperament, wanted = preferences.draw(rng)
    while not allowed(wanted):
        temperament, wanted = preferences.draw(rng)
    found: list[tuple[str, Preference]] = [(temperament, wanted)]
    if rng.random() < settings.changes:
        later = preferences.changed(wanted, rng)
        while not allowed(later):
            later = preferences.changed(wanted, rng)
        found.append((temperament, later))
    return found


def _tell(
    rows: Mapping[str, list[dict[str, Any]]],
    said: Dialogue,
    logged: dict[str, Any],
    topic: Topic,
    *,
    is_held_out: bool,
    draw: random.Random,
) -> None:
    """Write one complete conversation to all tables."""
    name = logged["conversation_hash"]
    rows["logs"].append(logged)
    rows["conversations"].append(
        {"conversation_hash": name, "topic": topic.name, "kind": topic.kind.value, "is_held_out_topic": is_held_out}
    )
    meant = {wish.message_index: wish for wish in said.wishes}
    for index, message in enumerate(said.messages):
        if message.label is not None:
            wish = meant.get(index)
            about = {
                "manner": wish and wish.manner.value,
                "aspect": wish and wish.aspect and wish.aspect.value,
                "value": wish and wish.value,
            }
            rows["labels"].append({"conversation_hash": name, "message_index": index, "label": message.label.value, **about})
    for act in said.acts:
        given_at = logged["conversation"][act.message_index]["timestamp"] + timedelta(seconds=draw.randrange(1, 30))
        click = Click(name, act.message_index, act.kind, act.value, act.text, given_at, act.is_noise)
        rows["clicks"].append(click.row())
        rows["told"].append(
            {"conversation_hash": name, "message_index": act.message_index, "kind": act.kind.value, "is_noise": act.is_noise}
        )
