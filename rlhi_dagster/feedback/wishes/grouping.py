"""The table `unmet_wishes`: each complaint with the wish and the topic that it is grouped under.

What belongs here: who gets which group, which groups stand, and the properties of the table. What does not: wishes by rule (``kinds``),
clustering (``clusters``), names (``names``), and what is counted of groups (``counts``).

Wish and topic are told apart: the wish from the complaint, the topic from the request that it is about. A group of fewer users than
``min_users`` does not stand: what it would say of a few people is nobody's business, and little besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import UNMET_WISHES
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.wishes.clusters import NO_GROUP, Embed, by_digest, clusters, foreign_language
from rlhi_dagster.feedback.wishes.kinds import wish_of
from rlhi_dagster.feedback.wishes.names import ChatNamer, Said, key_phrases

OTHER_WISHES = "other wishes"
OTHER_TOPICS = "other topics"


def unmet_wishes(found: pl.DataFrame, embed: Embed, min_users: int, namer: ChatNamer | None = None) -> pl.DataFrame:
    """Group complaints.

    Args:
        found: As ``complaints.complaints`` returns them.
        embed: The encoder.
        min_users: Least users of a group.
        namer: Names groups of similar texts; key phrases do where it is ``None`` or gives no name.

    Returns:
        Rows of ``tables.UNMET_WISHES``.
    """
    texts = found["text"].to_list()
    kinds = [wish_of(text, before) for text, before in zip(texts, found["previous_prompt"].to_list(), strict=True)]
    languages = {text: foreign_language(text) for text in set(texts)}
    told = [kind or (OTHER_WISHES if languages[text] else None) for kind, text in zip(kinds, texts, strict=True)]
    grouping = _Grouping(found["user_id"].to_list(), embed, min_users, namer)
    wishes, named_wishes = grouping.named(texts, told, OTHER_WISHES, "what the users want to be different")
    topics, named_topics = grouping.topics(found["request"].to_list())
    calls = [[*mine, *others] for mine, others in zip(named_wishes, named_topics, strict=True)]
    return UNMET_WISHES.conform(
        found.with_columns(
            wish=pl.Series(wishes, dtype=pl.String),
            topic=pl.Series(topics, dtype=pl.String),
            call_ids=pl.Series(calls, dtype=pl.List(pl.String)),
        )
    )


def topics_of(users: Sequence[str], requests: Sequence[str], embed: Embed, min_users: int) -> list[str]:
    """The topic of each request, grouped and named as those of complaints are, by key phrases.

    Args:
        users: Of each request the user.
        requests: What was asked.
        embed: The encoder.
        min_users: Least users of a topic.
    """
    return _Grouping(users, embed, min_users, None).topics(requests)[0]


@dataclass(frozen=True, slots=True)
class _Grouping:
    """What wishes and topics share: the user of each complaint, and how groups are made and named."""

    users: Sequence[str]
    embed: Embed
    min_users: int
    namer: ChatNamer | None

    def topics(self, requests: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """Topics of requests; one in another language than English has the language for its topic."""
        languages = {text: foreign_language(text) for text in set(requests)}
        told = [f"language {code}" if (code := languages[text]) else None for text in requests]
        return self.named(requests, told, OTHER_TOPICS, "what the users ask for")

    def named(self, texts: Sequence[str], told: Sequence[str | None], other: str, what: str) -> tuple[list[str], list[list[str]]]:
        """Cluster the texts whose group is not told, and name the clusters; what does not stand goes to ``other``.

        Returns:
            Of each complaint the group, and the model calls that named it.
        """
        names, calls = [name or other for name in told], [list[str]() for _ in told]
        unknown = [place for place, name in enumerate(told) if name is None]
        groups = clusters([texts[place] for place in unknown], self.embed)
        members: dict[int, list[int]] = {}
        rest: list[int] = []
        for number in by_digest([texts[place] for place in unknown]):
            members.setdefault(int(groups[number]), []).append(unknown[number])
        standing: list[list[int]] = []
        for group, mine in sorted(members.items()):
            if group != NO_GROUP and len({self.users[place] for place in mine}) >= self.min_users:
                standing.append(mine)
            else:
                rest += mine
        said = [self._said(texts, mine) for mine in standing]
        phrases = key_phrases(said, self._said(texts, rest))
        given = self.namer.names(said, what) if self.namer and said else [(None, "")] * len(said)
        for mine, phrase, (name, call) in zip(standing, phrases, given, strict=True):
            for place in mine:
                names[place], calls[place] = name or phrase or other, [call] if call else []
        return self._standing(names, other), calls

    def _said(self, texts: Sequence[str], places: Sequence[int]) -> list[Said]:
        return [(self.users[place], texts[place]) for place in places]

    def _standing(self, names: Sequence[str], other: str) -> list[str]:
        """The names that enough users have, ``other`` in the place of the rest."""
        of_name: dict[str, set[str]] = {}
        for name, user in zip(names, self.users, strict=True):
            of_name.setdefault(name, set()).add(user)
        return [name if len(of_name[name]) >= self.min_users else other for name in names]


def complaints_are_conserved(unmet_wishes: pl.LazyFrame, feedback_labels: pl.LazyFrame) -> Finding:
    """Every follow-up labelled as a re-attempt with feedback is one row, and no other row is there.

    Args:
        unmet_wishes: Rows of ``tables.UNMET_WISHES``.
        feedback_labels: Rows of ``tables.FEEDBACK_LABELS``.
    """
    complaints = feedback_labels.filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value)
    rows, wanted, lost, made_up = (
        int(frame.select(pl.len()).collect(engine="streaming").item())
        for frame in (
            unmet_wishes,
            complaints,
            complaints.join(unmet_wishes, on="turn_id", how="anti"),
            unmet_wishes.join(complaints, on="turn_id", how="anti"),
        )
    )
    return Finding(rows == wanted and not lost and not made_up, {"rows": rows, "complaints": wanted, "lost": lost, "made_up": made_up})


def groups_have_enough_users(unmet_wishes: pl.LazyFrame, min_users: int) -> Finding:
    """Every wish and every topic that has a name is that of at least `min_users` users.

    Args:
        unmet_wishes: Rows of ``tables.UNMET_WISHES``.
        min_users: The setting.
    """
    numbers: dict[str, Any] = {}
    small = 0
    for column, other in (("wish", OTHER_WISHES), ("topic", OTHER_TOPICS)):
        users = unmet_wishes.group_by(column).agg(pl.col("user_id").n_unique()).filter(pl.col(column) != other).collect()["user_id"]
        small += int((users < min_users).sum())
        numbers |= {f"{column}_groups": len(users), f"{column}_least_users": users.min()}
    return Finding(small == 0, numbers)
