"""Which wishes the rules hear in real logs, which persona lines come of them, and whether a line foretells what its user asks for later.

What belongs here: the real logs beside the repository, read as a run reads them, with the ids of every line so that each can be read by
eye; verdicts are recorded in ``docs/results/persona_lines.md``. What does not: a threshold, and the text of a message.
Run: ``python benchmarks/persona_lines.py ../shared/data``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rlhi_dagster.base.intervals import estimate, wilson
from rlhi_dagster.conversations.turns import turns
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels import agreement, offline
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.feedback.labels.follow_ups import MESSAGE_INDEX, ClassifierLabeller
from rlhi_dagster.personas import extractive, lasting

SOURCES = {"wildchat": "wildchat/wildchat_sample.parquet", "realhumaneval": "realhumaneval/user_chats.parquet"}
GOLD = {"wildchat": "wildchat/labels.csv"}


def is_kept_aside(conversation_id: str) -> bool:
    """Whether a conversation was kept aside while the rules were written: the first byte of its id's BLAKE2b of 8 bytes is odd."""
    return hashlib.blake2b(conversation_id.encode(), digest_size=8).digest()[0] % 2 == 1


@dataclass(frozen=True, slots=True)
class Logs:
    """A source's turns, with `is_kept_aside`, and the labels of its follow-ups."""

    turns: pl.DataFrame
    labels: pl.DataFrame


def read(folder: Path, name: str) -> Logs:
    """Ingest a source; labels are the given ones where there are any, else the packaged classifier's."""
    found = offline.read_follow_ups(str(folder / SOURCES[name]))
    if name in GOLD:
        gold = agreement.read_gold(folder / GOLD[name]).rename({"conversation_hash": "conversation_id"})
        ids = found.frame.select("turn_id", "conversation_id", MESSAGE_INDEX)
        labels = ids.join(gold, on=["conversation_id", "message_index"], how="left").select("turn_id", "label")
    else:
        labels = ClassifierLabeller(FeedbackClassifier.load(), MiniLM().embed).label(found.frame).select("turn_id", "label")
    aside = pl.col("conversation_id").map_elements(is_kept_aside, return_dtype=pl.Boolean)
    return Logs(turns(found.conversations).with_columns(is_kept_aside=aside), labels)


def heard(logs: Logs) -> list[str]:
    """How many follow-ups kept aside carry feedback, and in how many the rules hear a wish."""
    feedback = logs.labels.filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value).select("turn_id")
    rows = logs.turns.filter("is_kept_aside").join(feedback, on="turn_id", how="semi").sort("turn_id")
    ids = [turn_id for turn_id, prompt in rows.select("turn_id", "prompt").iter_rows() if lasting.about_answers(prompt, opens_task=False)]
    return [f"follow-ups labelled as feedback, kept aside: {len(rows)}; with a wish: {len(ids)}", *(f"  {each}" for each in ids)]


def lines(logs: Logs, least: int) -> Iterator[str]:
    """Persona lines of the conversations kept aside, with the messages that the first version of each cites."""
    said = extractive.wishes(logs.turns.lazy().filter("is_kept_aside"), logs.labels.lazy(), least)
    first: dict[tuple[str, str | None], extractive.Statement] = {}
    for each in said:
        first.setdefault((each.user_id, each.line), each)
    yield f"lines of wishes said in {least} conversation(s), kept aside: {len(first)}"
    for each in sorted(first.values(), key=lambda each: (str(each.line), each.user_id)):
        yield f"  {each.line} {', '.join(citation.turn_id for citation in each.citations)}"


def survival(logs: Logs, least: int) -> str:
    """Of lines whose user has later conversations, how many foretell: the wish comes back there more often than with other users.

    A conversation asks for a wish if a message in it that can support a line does. Later ones begin after the line became valid.
    """
    begun = dict(logs.turns.group_by("conversation_id").agg(pl.col("asked_at").min()).iter_rows())
    owner = dict(logs.turns.select("conversation_id", "user_id").unique().iter_rows())
    asked: dict[str, set[str]] = {conversation_id: set() for conversation_id in owner}
    for _, _, conversation_id, _, prompt, opens_task in extractive.speaking(logs.turns.lazy(), logs.labels.lazy()).iter_rows():
        asked[conversation_id] |= {request.line for request, _ in lasting.about_answers(prompt, opens_task=opens_task)}
    first: dict[tuple[str, str | None], extractive.Statement] = {}
    for each in extractive.wishes(logs.turns.lazy(), logs.labels.lazy(), least):
        first.setdefault((each.user_id, each.line), each)
    gains, users, survived = list[float](), list[str](), 0
    for (user_id, line), each in first.items():
        later = [line in asked[key] for key, whose in owner.items() if whose == user_id and begun[key] > each.moment]
        others = [line in asked[key] for key, whose in owner.items() if whose != user_id]
        if later and others:
            gain = sum(later) / len(later) - sum(others) / len(others)
            survived += gain > 0
            gains.append(gain)
            users.append(user_id)
    if not gains:
        return f"{least} conversation(s): {len(first)} lines, none with later conversations of its user"
    low, high = wilson(survived / len(gains), len(gains))
    mean = estimate(gains, users, is_share=False)
    interval = "" if mean.ci_low is None or mean.ci_high is None else f" [{mean.ci_low:.2f}, {mean.ci_high:.2f}]"
    return (
        f"{least} conversation(s): {len(first)} lines, {len(gains)} with later conversations; {survived} survive: "
        f"{survived / len(gains):.2f} [{low:.2f}, {high:.2f}]; asked for in later conversations more often than by others by "
        f"{mean.value:.2f}{interval}"
    )


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    given = parser.parse_args()
    for name in SOURCES:
        logs = read(given.data, name)
        print("\n".join([f"# {name}", *heard(logs), *lines(logs, 1), *lines(logs, 2), *(survival(logs, least) for least in (1, 2)), ""]))


if __name__ == "__main__":
    main()
