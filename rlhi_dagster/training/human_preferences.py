"""Pairs that people ranked, in hh-rlhf's layout: two transcripts that differ in their last reply.

What belongs here: from a location to pairs of messages, with every row that gives none counted under its reason. What does not: the files'
rows and the marks of a transcript (``feedback.diversity.corpora``), and what a reward model makes of the pairs (``reward_scores``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.conversations.sources import files
from rlhi_dagster.engines.base import Messages
from rlhi_dagster.feedback.diversity.corpora import read_rows, turns_of_dialogue

PAIRS = pl.Schema({"pair_id": pl.String(), "prompt": MESSAGES, "chosen": pl.String(), "rejected": pl.String()})
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Fault(StrEnum):
    """Why a row that can be read gives no pair."""

    NO_DIALOGUE = "no_dialogue"
    """A transcript that does not alternate from a person's message to a reply, or has an empty message."""
    PROMPTS_DIFFER = "prompts_differ"
    """The transcripts differ before their last reply."""
    SAME_REPLY = "same_reply"


@dataclass(frozen=True, slots=True)
class HumanPairs:
    """A set of human preferences.

    Attributes:
        name: Name of the set.
        pairs: ``PAIRS``, in the order of the files.
        rows: Rows read.
        broken: Rows that give no pair, by reason; with the pairs they add up to the rows.
    """

    name: str
    pairs: pl.DataFrame
    rows: int
    broken: Mapping[str, int]


def read(name: str, location: str) -> HumanPairs:
    """Read a set.

    Raises:
        ValueError: No file matches, or no row gives a pair; the message names the location.
    """
    found, broken = [], Counter[str]()
    for number_of_file, file in enumerate(files.find(location)):
        for number, texts, reason, _ in read_rows(file, ("chosen", "rejected")):
            pair = _pair(*texts) if texts else None
            if isinstance(pair, tuple):
                found.append((f"{name}/{number_of_file}:{number}", *pair))
            else:
                broken[str(pair or reason)] += 1
    if not found:
        raise ValueError(f"{name}: no row of {location} gives a pair; human preferences need `chosen` and `rejected` as hh-rlhf has them")
    pairs = pl.DataFrame(found, schema=PAIRS, orient="row")
    return HumanPairs(name, pairs, len(found) + broken.total(), dict(sorted(broken.items())))


def _pair(chosen: str, rejected: str) -> tuple[Messages, str, str] | Fault:
    one, other = _messages(chosen), _messages(rejected)
    if one is None or other is None:
        return Fault.NO_DIALOGUE
    if one[:-1] != other[:-1]:
        return Fault.PROMPTS_DIFFER
    if one == other:
        return Fault.SAME_REPLY
    return one[:-1], one[-1]["content"], other[-1]["content"]


def _messages(text: str) -> Messages | None:
    turns = turns_of_dialogue(text)
    speakers = [speaker for speaker, _ in turns]
    if not turns or speakers != ["Human", "Assistant"] * (len(turns) // 2) or not all(message for _, message in turns):
        return None
    return [{"role": _ROLES[speaker], "content": message} for speaker, message in turns]
