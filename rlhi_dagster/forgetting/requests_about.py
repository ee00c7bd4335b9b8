"""Questions about a user, asked once more of the store alone: their answers belong to the user although no row need name them.

What belongs here: which modules ask about a user's texts in a form of their own, and hearing what they ask. What does not: the questions
(each module's own) and what models were shown of the dialogues themselves (``traces``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations.turns import timed
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, trace
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.evaluation.judges import ChatJudge, judge_pairs
from rlhi_dagster.feedback.labels.chat_labeller import ChatLabeller
from rlhi_dagster.feedback.labels.follow_ups import follow_ups
from rlhi_dagster.personas.chat_writer import ChatWriter
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.store import erase
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.recipes import BASE

_NONE = ChatAnswer(None, "not_in_store", None, 0, 0)


@dataclass(slots=True)
class Echo:
    """Answers questions from the store, whatever model was asked and how, and notes which answers there are.

    Attributes:
        store: Folder of the response store.
        keys: Of every answer to a question that was heard.
    """

    store: Path
    keys: set[str] = field(default_factory=set)

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """The answers of one model, the first by name, and an error where there is none."""
        ids = [trace(request).message_id for request in requests]
        rows = erase.asked(self.store, {"message_id": set(ids)}) if ids else pl.DataFrame()
        if rows.is_empty():
            return [_NONE] * len(requests)
        self.keys |= set(rows["key"])
        first = rows.filter(kind="chat").sort("model", "key").unique("message_id", keep="first", maintain_order=True)
        answers: dict[int, ChatAnswer] = {}
        for (model,), of_model in first.group_by("model"):
            found = read_chat(of_model["key"].to_list(), ResponseStore(self.store, "chat", str(model)))
            answers |= dict(zip(of_model["message_id"].to_list(), found, strict=True))
        return [answers.get(each, _NONE) for each in ids]


def asked_about(lake: Lake, store: Path, user_id: str, writer: PersonaSettings) -> frozenset[str]:
    """Keys of answers about a user's follow-ups (labeller), messages (persona writer) and evaluated replies (judge).

    Args:
        lake: The tables, with the user's rows still there.
        store: Folder of the response store.
        user_id: The user.
        writer: How much a persona writer reads at a time.
    """
    echo = Echo(store)
    turns = _own(lake, "turns", user_id)
    if len(turns):
        ChatLabeller.with_default_prompts("", echo).label(follow_ups(turns.lazy()))
        ChatWriter.with_default_prompt("", echo, writer).persona_lines(timed(turns.lazy(), _own(lake, "conversations", user_id).lazy()))
    items = _own(lake, "eval_prompts", user_id)
    if len(items) and any(lake.artefact_path("responses").glob("*.parquet")):
        _judged(items, lake.scan("responses").filter(pl.col("prompt_id").is_in(items["prompt_id"].implode())).collect(), echo)
    return frozenset(echo.keys)


def _own(lake: Lake, table: str, user_id: str) -> pl.DataFrame:
    if not any(lake.artefact_path(table).glob("*.parquet")):
        return TABLES[table].empty()
    return lake.scan(table).filter(pl.col("user_id") == user_id).collect(engine="streaming")


def _judged(items: pl.DataFrame, responses: pl.DataFrame, echo: Echo) -> None:
    of_base = responses.filter(pl.col("recipe") == BASE)
    for (_,), mine in responses.group_by("recipe"):
        both = items.join(mine, on="prompt_id", how="semi").join(of_base, on="prompt_id", how="semi")
        if len(both):
            judge_pairs(both, mine, of_base, ChatJudge.with_default_prompts("", echo))
