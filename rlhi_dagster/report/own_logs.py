"""What a log file holds, as one self-contained page, without a run: ``rlhi logs``.

What belongs here: everything that the page shows, counted from ingested rows and labels, and its summary for a terminal. What does not:
reading and labelling (``feedback.labels.offline``), the sections that the report has too (``logs``, ``wishes``), and markup
(``logs_page.html``).

Nobody is held out here: every user counts. Of groups of fewer users than ``min_users`` nothing is shown. Texts are as they are stored, so
redacted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.conversations.splits import Split, SplitSettings
from rlhi_dagster.conversations.users import users
from rlhi_dagster.engines.forecast import CHARACTERS_PER_TOKEN
from rlhi_dagster.engines.questions import shortened
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels.follow_ups import MESSAGE_INDEX
from rlhi_dagster.feedback.labels.offline import FollowUps
from rlhi_dagster.feedback.rates.shares import ALL, Denominator, reattempt_rates
from rlhi_dagster.feedback.wishes import counts
from rlhi_dagster.feedback.wishes.clusters import Embed, by_digest
from rlhi_dagster.feedback.wishes.complaints import complaints
from rlhi_dagster.feedback.wishes.grouping import OTHER_TOPICS, OTHER_WISHES, topics_of, unmet_wishes
from rlhi_dagster.personas.extractive import persona_lines
from rlhi_dagster.personas.settings import PRECISION, PersonaSettings
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences.explicit_pairs import explicit_pairs
from rlhi_dagster.preferences.settings import ExplicitPairSettings
from rlhi_dagster.report import logs, wishes
from rlhi_dagster.report.data import ReportData
from rlhi_dagster.report.page import template
from rlhi_dagster.report.words import Table, bracket, percent

EXAMPLES = 10
"""Of a label."""
_CHARACTERS = {"before": 200, "follow_up": 300}
_MOST_TOPICS = 20
_KINDS = {
    FeedbackKind.EDIT: "a reply that was edited, over the original",
    FeedbackKind.REGENERATION: "the reply that stayed, over the one that was tried again",
    FeedbackKind.CHOICE: "the draft that was chosen, over the other",
}


@dataclass(frozen=True, slots=True)
class OwnLogs:
    """What the page is made from.

    Attributes:
        location: As given.
        account: Rows in, and what became of them.
        files: One line on the files that were read.
        labeller: Who labelled.
        data: The tables that sections of the report are made from.
        examples: Label, message, what stood before it and what it says: ``conversation_hash``, ``message_index``, ``label``,
            ``probability``, ``before``, ``follow_up``.
        topics: ``topic``, ``conversations``, ``users``; small groups together.
        lines: Persona lines that would stand now: ``line``, ``users``; of too few users none.
        pairs: ``explicit_pairs``.
        turns: ``TURNS``.
    """

    location: str
    account: str
    files: str
    labeller: str
    data: ReportData
    examples: pl.DataFrame
    topics: pl.DataFrame
    lines: pl.DataFrame
    pairs: pl.DataFrame
    turns: pl.DataFrame


def survey(location: str, found: FollowUps, labels: pl.DataFrame, embed: Embed, min_users: int) -> OwnLogs:
    """Count what a source holds.

    Args:
        location: For the page.
        found: Its rows.
        labels: ``FEEDBACK_LABELS`` of its follow-ups.
        embed: The encoder.
        min_users: Least users of a group that is shown.
    """
    conversations, turns = found.conversations, found.turns
    wished = unmet_wishes(complaints(labels.lazy(), turns.lazy()), embed, min_users)
    everybody = users(conversations, SplitSettings(tuning=0.0, test=0.5)).with_columns(split=pl.lit(Split.TRAIN.value))
    written = persona_lines(turns.lazy(), labels.lazy(), conversations.lazy(), PersonaSettings(extracts=("wishes",)), embed).lines
    pairs = explicit_pairs(found.explicit_feedback, turns, labels, everybody, written, ExplicitPairSettings(), personas_at)
    current = written.filter(pl.col("valid_until").is_null()).group_by("line").agg(pl.col("user_id").n_unique().alias("users"))
    data = ReportData(
        conversations=conversations,
        users=everybody,
        quarantine=found.quarantine,
        reattempt_rates=reattempt_rates(conversations.lazy(), labels.lazy()),
        feedback_labels=labels,
        unmet_wishes=wished,
        min_users=min_users,
        turns=turns,
        is_of_run=False,
    )
    return OwnLogs(
        location=location,
        account=found.account,
        files=found.files,
        labeller=", ".join(labels["labeller"].unique().sort()),
        data=data,
        examples=_examples(found.frame, labels),
        topics=_topics(turns, embed, min_users),
        lines=current.filter(pl.col("users") >= min_users).sort("users", "line", descending=[True, False]),
        pairs=pairs,
        turns=turns,
    )


def _examples(follow_ups: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Up to ten follow-ups of each label, drawn by the digest of their ids."""
    joined = labels.select("turn_id", "label", "probability").join(follow_ups, on="turn_id").sort("turn_id")
    drawn = joined[by_digest(joined["turn_id"].to_list())].group_by("label", maintain_order=True).head(EXAMPLES)
    order = pl.col("label").replace_strict({label.value: place for place, label in enumerate(Feedback)}, return_dtype=pl.Int8)
    cut = {
        name: pl.col(column).map_elements(partial(shortened, limit=_CHARACTERS[name]), return_dtype=pl.String)
        for name, column in (("before", "previous_prompt"), ("follow_up", "follow_up"))
    }
    return drawn.sort(order, "turn_id").select("label", "probability", MESSAGE_INDEX, conversation_hash="conversation_id", **cut)


def _topics(turns: pl.DataFrame, embed: Embed, min_users: int) -> pl.DataFrame:
    opening = turns.filter(pl.col("turn") == 1).sort("turn_id")
    named = topics_of(opening["user_id"].to_list(), opening["prompt"].to_list(), embed, min_users)
    return (
        opening.with_columns(topic=pl.Series(named, dtype=pl.String))
        .group_by("topic")
        .agg(conversations=pl.len().cast(pl.Int64), users=pl.col("user_id").n_unique().cast(pl.Int64))
        .sort(pl.col("topic") == OTHER_TOPICS, "conversations", "topic", descending=[False, True, False])
    )


def gold(own: OwnLogs) -> pl.DataFrame:
    """The examples as a file of labels to correct, as ``agreement.read_gold`` reads it.

    A text stands in quotation marks, so that no program takes it for a formula.
    """
    said = pl.format("“{}”", pl.col("follow_up"))
    return own.examples.select("conversation_hash", "message_index", "label", said.alias("follow_up"))


def pairs_table(own: OwnLogs) -> Table:
    """The pairs that would follow from the logs, by where they come from, and what they cost in calls and tokens."""
    rows = []
    for kind, what in _KINDS.items():
        of_kind = own.pairs.filter(pl.col("kind") == kind.value)
        rows.append([what, f"{len(of_kind):,}", f"{int(of_kind['is_kept'].sum()):,}", "0", "0", "0"])
    replies, rewrites = _calls(own)
    rows.append(["a rewrite with the complaint in view, over the original", *_costs(rewrites)])
    no_pairs = ["\u2013", "\u2013"]
    rows.append(["the new replies that are rewritten, one a message of a conversation with a complaint", *no_pairs, *_costs(replies)[2:]])
    caption = (
        "Before filters, and without the judge and the reward model, if a profile has them. Tokens are those of the logged texts at "
        f"{CHARACTERS_PER_TOKEN:.0f} characters each. With a profile, `rlhi plan` tells what each step asks for."
    )
    return Table(["pair", "found", "kept", "calls", "tokens in", "tokens out"], rows, caption)


def _calls(own: OwnLogs) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Characters in and out of each new reply and each rewrite."""
    before = (pl.col("prompt").str.len_chars() + pl.col("reply").str.len_chars().fill_null(0)).cum_sum().shift(1).over("conversation_id")
    said = own.turns.sort("conversation_id", "turn").with_columns(read=before.fill_null(0) + pl.col("prompt").str.len_chars())
    assert own.data.feedback_labels is not None
    wanted = own.data.feedback_labels.lazy().filter(pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value).collect()
    replies = said.join(wanted, on="conversation_id", how="semi").filter(pl.col("reply").is_not_null())
    follow_ups = said.join(wanted, on="turn_id", how="semi").select("conversation_id", turn=pl.col("turn") - 1, more=pl.col("prompt"))
    rewritten = said.join(follow_ups, on=["conversation_id", "turn"])
    written = pl.col("reply").str.len_chars()
    more = written + pl.col("more").str.len_chars()
    return (
        replies.select("read", written=written),
        rewritten.select(read=pl.col("read") + more, written=written),
    )


def _costs(calls: pl.DataFrame) -> list[str]:
    tokens = [round(int(calls[column].sum() or 0) / CHARACTERS_PER_TOKEN) for column in ("read", "written")]
    return [f"{len(calls):,}", "\u2013", *(f"{count:,}" for count in (len(calls), *tokens))]


def render(own: OwnLogs, gold_file: str) -> str:
    """The page as HTML.

    Args:
        own: What to show.
        gold_file: Name of the file of labels to correct that lies beside the page.
    """
    examples = [
        {"label": label, "rows": Table(["n", "before", "the follow-up", "sure by"], _example_rows(rows), text_columns=(1, 2))}
        for (label,), rows in own.examples.with_row_index("row", offset=1).group_by("label", maintain_order=True)
    ]
    topics = [[row["topic"], f"{row['conversations']:,}", f"{row['users']:,}"] for row in own.topics.head(_MOST_TOPICS).to_dicts()]
    lines = [[line, f"{count:,}"] for line, count in own.lines.iter_rows()]
    return template("logs_page.html").render(
        own=own,
        cards=_cards(own),
        logs=logs.logs(own.data),
        wishes=wishes.wishes(own.data),
        reattempts=logs.reattempts(own.data),
        topics=Table(["topic", "conversations", "users"], topics),
        lines=Table(["line", "users"], lines) if lines else None,
        precision=PRECISION,
        examples=examples,
        gold_file=gold_file,
        pairs=pairs_table(own),
    )


def _example_rows(rows: pl.DataFrame) -> list[Sequence[Any]]:
    return [[str(row["row"]), row["before"], row["follow_up"], f"{row['probability']:.2f}"] for row in rows.iter_rows(named=True)]


def _overall(own: OwnLogs) -> dict[str, Any] | None:
    """The share of follow-ups that are re-attempts with feedback; ``None`` without follow-ups."""
    rates = own.data.table("reattempt_rates", ["level", "denominator", "templates", "value", "ci_low", "ci_high", "n", "unanswered"])
    if rates is None:
        return None
    found = rates.filter(level=ALL, denominator=Denominator.FOLLOW_UPS.value, templates="included").drop_nulls("value")
    return found.row(0, named=True) if len(found) else None


def _cards(own: OwnLogs) -> list[tuple[str, str, str]]:
    """Name, value and remark of the numbers at the top."""
    rate, everybody = _overall(own), own.data.table("users", ["user_id", "conversations"])
    returning = 0 if everybody is None else everybody.filter(pl.col("conversations") > 1).height
    return [
        ("conversations", f"{own.turns['conversation_id'].n_unique():,}", f"{len(own.turns):,} user messages"),
        ("users", f"{own.turns['user_id'].n_unique():,}", f"{returning:,} with more than one conversation"),
        (
            "ask again and say what to change",
            percent(rate["value"] if rate else None),
            f"of {rate['n']:,} follow-ups {bracket(rate['ci_low'], rate['ci_high'])}" if rate else "no follow-up",
        ),
    ]


def summary(own: OwnLogs) -> str:
    """The page in short, for a terminal; no text of a message is in it."""
    lines = [own.files, own.account, *(f"{value} {name}; {remark}" for name, value, remark in _cards(own))]
    wished = own.data.table("unmet_wishes", ["turn_id", "wish", "user_id", "is_resolved"])
    if wished is not None:
        groups = counts.by_group(wished, "wish", own.data.min_users).filter(pl.col("wish") != OTHER_WISHES).head(5)
        shown = groups.select("wish", "complaints", "users").iter_rows()
        named = ", ".join(f"{wish} ({count:,} by {users_:,} users)" for wish, count, users_ in shown)
        lines.append(f"commonest complaints: {named or f'none of {own.data.min_users} users or more'}")
    topics = own.topics.filter(pl.col("topic") != OTHER_TOPICS).head(5).select("topic", "conversations").iter_rows()
    lines.append(f"commonest topics: {'; '.join(f'{topic} ({count:,})' for topic, count in topics) or 'none stands out'}")
    rows = pairs_table(own).rows
    found = ", ".join(f"{row[1]} {name}" for name, row in zip(_SHORT, rows, strict=False))
    lines.append(f"pairs that would follow: {found}")
    return "\n".join(lines)


_SHORT = ("edits", "siblings", "drafts", "rewrites")
