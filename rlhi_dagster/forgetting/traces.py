"""What of the response store is a user's, beyond the calls that rows name: vectors of their texts, and answers of earlier runs.

What belongs here: from a user's texts to keys. What does not: the calls of rows (``footprint``) and removing (``store/erase.py``).

The store keeps no prompts, but digests of their parts (``engines.base.Trace``). So an answer under earlier settings or an earlier model,
which no table names any more, is known by the message it answers, by the history before it, or by the persona, where nobody else's are the
same. Questions about the user (of a labeller, a persona writer, a judge) are asked once more, and the store answers by the digest of the
question: those that gave no row are found, too. What was asked in other words earlier cannot be told so; nothing uses it after the next
materialization, and ``rlhi store gc --unreferenced`` removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.control_tokens import escaped_messages
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.base import ChatRequest, Messages, trace
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.forgetting.footprint import Footprint, tables
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.store import erase

_PROMPTS = (
    "wildllamachat",
    "rewrites",
    "rewrite_pairs",
    "candidates",
    "reward_pairs",
    "preference_pairs",
    "thumb_examples",
    "follow_up_examples",
    "online_candidates",
    "eval_prompts",
)
"""Tables whose rows show a model a dialogue."""


def vectors(texts: Collection[str], others: Collection[str], encoder: str = MiniLM.name) -> frozenset[str]:
    """Keys of the vectors of texts, less those of texts that others wrote, too. Whoever embeds, embeds texts as they stand or stripped."""
    return frozenset(digest_of("embedding", encoder, text) for text in set(texts) - set(others))


def answers(lake: Lake, store: Path, found: Footprint, others: Collection[str], shared: Collection[str]) -> frozenset[str]:
    """Keys of answers that belong to the user's dialogues by the digests of their messages.

    Args:
        lake: The tables, with the user's rows still there.
        store: Folder of the response store.
        found: What is the user's.
        others: Texts that others wrote word for word.
        shared: Keys that rows of others name: those stay.
    """
    messages: set[int] = set()
    histories: set[int] = set()
    for dialogue in _dialogues(lake, found.user_id):
        is_own = [message["role"] == "user" and message["content"] not in others for message in dialogue]
        for said, end in product(_spellings(dialogue), range(1, len(dialogue) + 1)):
            asked = trace(ChatRequest([*said[:end], {"role": "assistant", "content": ""}]))
            if any(is_own[:end]):
                histories.add(asked.history_id)
            if is_own[end - 1]:
                messages.add(trace(ChatRequest(said[end - 1 : end])).message_id)
    personas = [said for persona in _personas(lake, found.user_id) for said in _spellings(with_persona([], persona))]
    systems = {trace(ChatRequest(said)).system_id for said in personas}
    known = {name: ids for name, ids in (("message_id", messages), ("history_id", histories), ("system_id", systems)) if ids}
    return frozenset(erase.asked(store, known)["key"] if known else ()) - frozenset(shared)


def _spellings(said: Messages) -> list[Messages]:
    """Messages as requests hold them and as training rows do, with control tokens as text."""
    return [said] if (safe := escaped_messages(said)) == said else [said, safe]


def _personas(lake: Lake, user_id: str) -> set[str]:
    """Personas that rows of the user were shown and rows of nobody else."""
    own: set[str] = set()
    others: set[str] = set()
    for _, frame in tables(lake):
        if {"user_id", "persona"} <= set(frame.collect_schema()):
            shown = frame.select("user_id", "persona").unique().filter(pl.col("persona").is_not_null() & (pl.col("persona") != ""))
            for owner, persona in shown.collect(engine="streaming").iter_rows():
                (own if owner == user_id else others).add(persona)
    return own - others


def _dialogues(lake: Lake, user_id: str) -> Iterator[Messages]:
    """What models were shown of the user's dialogues, from the first message to a user's message; personas where they may stand in it."""
    for name, frame in tables(lake):
        own = frame.filter(pl.col("user_id") == user_id) if "user_id" in frame.collect_schema() else None
        if own is None:
            continue
        if name == "turns":
            yield from ([{"role": "user", "content": text}] for text in own.select("prompt").collect()["prompt"])
        elif name in _PROMPTS:
            for row in own.collect().iter_rows(named=True):
                yield from _shown(row)


def _shown(row: dict[str, Any]) -> Iterator[Messages]:
    if isinstance(row["prompt"], str):
        yield [*row["history"], {"role": "user", "content": row["prompt"]}]
        return
    yield row["prompt"]
    if row["persona"]:
        yield with_persona(row["prompt"], row["persona"], PersonaPlacement.FIRST_USER)
