"""Every table of the graph, declared once: stored types, UI columns, key and partition column.

What belongs here: names, types and one-line meanings of columns. What does not: how a table is made (the stage's package)
or checked (``checks.py``). One row of each table is what the first sentence of ``Table.grain`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import polars as pl

MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String()}))
TIME = pl.Datetime("us", "UTC")
SOURCE_MESSAGES = pl.List(
    pl.Struct({"message_id": pl.String(), "message_index": pl.Int32(), "role": pl.String(), "content": pl.String(), "sent_at": TIME})
)


CALLS = ("call_id", "call_ids")
"""Ends of the names of columns that hold keys of the response store."""


@dataclass(frozen=True, slots=True)
class Table:
    """A stored table.

    Attributes:
        grain: One sentence that says what one row is.
        columns: Column name to (polars type, meaning); the stored order.
        unique: Columns that together have neither nulls nor duplicates.
        partition_column: Column whose value names the partition a row belongs to; ``None`` if unpartitioned.
    """

    grain: str
    columns: Mapping[str, tuple[pl.DataType, str]]
    unique: tuple[str, ...]
    partition_column: str | None = None

    @property
    def schema(self) -> pl.Schema:
        """Column names and stored types."""
        return pl.Schema({name: dtype for name, (dtype, _) in self.columns.items()})

    @property
    def metadata(self) -> dict[str, Any]:
        """Definition-time metadata: the column schema as the Dagster UI shows it."""
        columns = [dg.TableColumn(name, type=type_name(dtype), description=meaning) for name, (dtype, meaning) in self.columns.items()]
        return {"dagster/column_schema": dg.TableSchema(columns=columns)}

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return ``frame`` with exactly the declared columns, in order and in the declared types, sorted by the key.

        Raises:
            ValueError: A declared column is missing from ``frame``; the message names it.
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ValueError(f"the frame lacks the column(s) {', '.join(missing)}; it has {', '.join(frame.columns)}")
        return frame.select(pl.col(name).cast(dtype) for name, (dtype, _) in self.columns.items()).sort(self.unique)

    def empty(self) -> pl.DataFrame:
        """A frame of the declared schema without rows."""
        return pl.DataFrame(schema=self.schema)


def type_name(dtype: pl.DataType) -> str:
    """A type in few letters, for what is long makes the UI clip the column's meaning; of a small structure the names of its fields."""
    if isinstance(dtype, pl.List):
        return f"List({type_name(_inner(dtype))})"
    if isinstance(dtype, pl.Struct):
        return f"{{{', '.join(field.name for field in dtype.fields)}}}" if len(dtype.fields) <= 2 else "Struct"
    return "Datetime(UTC)" if isinstance(dtype, pl.Datetime) else str(dtype)


def _inner(dtype: pl.List) -> pl.DataType:
    return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()


_MONTH = (pl.String(), "Partition: month of the conversation's start, `YYYY-MM`.")
_TURN_ID = (pl.String(), "The user message (`conversation_id:message_index`).")
_CONVERSATION_ID = (pl.String(), "The conversation.")
_USER_ID = (pl.String(), "Salted fingerprint of the user's connection.")
_TURN = (pl.Int32(), "1 for the opening request, 2 for the first follow-up, and so on.")
_PERSONA = (pl.String(), "Persona shown to the model: lines valid strictly before the turn; empty if none.")
_PERSONA_LINE_IDS = (pl.List(pl.String()), "Persona lines that make up `persona`.")
_PROMPT = (MESSAGES, "History and request, without the persona: the messages up to the reply being compared.")
_CHOSEN = (pl.String(), "Preferred reply.")
_REJECTED = (pl.String(), "Dispreferred reply.")
_IS_KEPT = (pl.Boolean(), "Whether the pair goes on to `preference_pairs`.")
_IS_OFF_POLICY = (
    pl.Boolean(),
    "The rejected side is the logged reply, which another model wrote; with strategy `logged` so is the chosen one.",
)
_STRATEGY = (pl.String(), "How the rewrite was made: one of `rlhi_dagster.preferences.Strategy`.")
_DROP_REASONS = (pl.List(pl.String()), "Every reason why the pair was dropped, in the order in which they are looked at; empty if kept.")
_CALL_ID = (pl.String(), "The model call that gave it: a key of the response store (`rlhi store explain`).")
_REWARD_MODEL = (pl.String(), "Reward model: Hub id and revision, or digest of the local weights.")
_CHOSEN_REWARD = (pl.Float64(), "Reward of the preferred reply; null where no reward model saw the pair.")
_REJECTED_REWARD = (pl.Float64(), "Reward of the dispreferred reply; null where no reward model saw the pair.")
_MODEL = (pl.String(), "Model that wrote the text: Hub id and revision, or digest of the local weights.")
_RECIPE = (pl.String(), "Partition: the training recipe.")
_PROMPT_ID = (pl.String(), "The evaluation item.")
_NO_PROBABILITY = "null where no model was asked, or its engine does not tell."
_CI_LOW = (pl.Float64(), "Lower end of the 95 % interval.")
_CI_HIGH = (pl.Float64(), "Upper end of the 95 % interval.")

CONVERSATIONS = Table(
    "An accepted conversation.",
    {
        "conversation_id": (pl.String(), "The source's own id."),
        "user_id": _USER_ID,
        "month": _MONTH,
        "address_id": (pl.String(), "Salted fingerprint of the network address alone; null if the source has none."),
        "started_at": (TIME, "When the conversation started."),
        "ended_at": (TIME, "Latest time that is known of the conversation; `started_at` if there is no later one."),
        "is_start_assumed": (pl.Boolean(), "The source gave no time; `started_at` is the source setting `assumed_start`."),
        "source": (pl.String(), "Name of the source in the profile."),
        "assistant": (pl.String(), "Model that wrote the logged replies."),
        "language": (pl.String(), "Language as the source gives it; null if unknown."),
        "is_toxic": (pl.Boolean(), "The source's toxicity flag; null if it has none."),
        "template_id": (pl.String(), "Cluster of near-identical opening requests; null outside any cluster."),
        "user_turns": (pl.Int32(), "Number of user messages that got a reply."),
        "has_last_word": (pl.Boolean(), "The last message is the user's, and nobody answered it."),
        "repairs": (pl.List(pl.String()), "Repairs made to the message list, in order."),
        "redactions": (
            pl.List(pl.String()),
            "What was replaced in the messages, one entry a stretch: `rlhi_dagster.conversations.redaction.Kind` or an entity label.",
        ),
        "messages": (
            SOURCE_MESSAGES,
            "Alternating user and assistant messages, the last one a reply or the last word, with positions in the source's list.",
        ),
    },
    ("conversation_id",),
    "month",
)
QUARANTINE = Table(
    "A rejected source row.",
    {
        "row_id": (pl.String(), "`source_file#row_number`."),
        "month": _MONTH,
        "source": (pl.String(), "Name of the source in the profile."),
        "source_file": (pl.String(), "File the row came from."),
        "row_number": (pl.Int64(), "0-based position in the file."),
        "conversation_id": (pl.String(), "The source's own id, if it has one."),
        "reason": (pl.String(), "One of `rlhi_dagster.conversations.Reason`."),
        "detail": (pl.String(), "What exactly was found, without any user text."),
    },
    ("row_id",),
    "month",
)
SUPERSEDED = Table(
    "A source row that is no conversation of its own: another row says the same and more, or it says something about one.",
    {
        "row_id": (pl.String(), "`source_file#row_number`."),
        "month": (pl.String(), "Month of the conversation that the row belongs to, `YYYY-MM`, UTC; partition key."),
        "source": (pl.String(), "Name of the source in the profile."),
        "source_file": (pl.String(), "File the row came from."),
        "row_number": (pl.Int64(), "0-based position in the file."),
        "conversation_id": (pl.String(), "The conversation that the row belongs to, where that is known."),
        "cause": (pl.String(), "Why it is none of its own, in words."),
    },
    ("row_id",),
    "month",
)
TURNS = Table(
    "A user message and the reply to it, if it got one.",
    {
        "turn_id": _TURN_ID,
        "conversation_id": _CONVERSATION_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "turn": _TURN,
        "asked_at": (
            TIME,
            "Time of the user message; if the source has none, start of the conversation + (turn - 1) s, of a last word"
            " 1 s after the latest time that is known of the conversation.",
        ),
        "prompt": (pl.String(), "The user message."),
        "reply_id": (pl.String(), "The assistant message; null for a last word, which nobody answered."),
        "reply": (pl.String(), "The logged reply; null for a last word."),
        "template_id": (pl.String(), "Template cluster of the conversation's opening request; null outside any."),
    },
    ("turn_id",),
    "month",
)
EXPLICIT_FEEDBACK = Table(
    "Something that somebody said of a reply outright.",
    {
        "feedback_id": (pl.String(), "The reply, the kind, and a digest of what was said."),
        "conversation_id": _CONVERSATION_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "turn_id": _TURN_ID,
        "reply_id": (pl.String(), "Id of the reply that it is about."),
        "kind": (pl.String(), "One of `rlhi_dagster.conversations.sources.records.FeedbackKind`."),
        "value": (
            pl.Float64(),
            "A thumb (1 or -1), a rating on the source's own scale, or the thumb that a regenerated reply had got; else null.",
        ),
        "text": (pl.String(), "A comment or a reason; of an edit, a regeneration or a choice the other reply."),
        "given_at": (TIME, "When it was given; null if unknown."),
        "giver": (pl.String(), "One of `rlhi_dagster.conversations.sources.records.Giver`."),
    },
    ("feedback_id",),
    "month",
)
USERS = Table(
    "A connection fingerprint (not necessarily one person).",
    {
        "user_id": _USER_ID,
        "conversations": (pl.Int64(), "Accepted conversations."),
        "user_messages": (pl.Int64(), "User messages that got a reply."),
        "first_seen": (TIME, "Start of the first conversation."),
        "last_seen": (TIME, "Start of the last conversation."),
        "languages": (pl.Int64(), "Languages of the conversations; unknown ones not counted."),
        "devices": (pl.Int64(), "Fingerprints at the same network addresses, this one included; 1 if the source has no addresses."),
        "simultaneous": (pl.Int64(), "Most conversations open at one moment; 1 if the source has no times."),
        "merge_risk": (
            pl.List(pl.String()),
            "Signs that several people share the fingerprint: any of `rlhi_dagster.conversations.users.MergeSign`.",
        ),
        "split_group": (
            pl.String(),
            "The earliest of the users that share network addresses with this one, directly or through others; itself if there is none.",
        ),
        "split": (pl.String(), "`train`, `tuning` or `test`; a function of `split_group` alone."),
    },
    ("user_id",),
)
FEEDBACK_LABELS = Table(
    "A follow-up message and what it says about the reply before it.",
    {
        "turn_id": _TURN_ID,
        "conversation_id": _CONVERSATION_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "turn": _TURN,
        "is_unanswered": (pl.Boolean(), "It is a last word: nobody answered it."),
        "label": (pl.String(), "One of `rlhi_dagster.feedback.Feedback`."),
        "probability": (pl.Float64(), "The labeller's probability of `label`."),
        "reattempt_probability": (pl.Float64(), "The labeller's probability of `reattempt_with_feedback`."),
        "span": (pl.String(), "The part of the message that names what to change, verbatim; null if none was found."),
        "labeller": (pl.String(), "Name and digest of the labeller."),
        "call_ids": (
            pl.List(pl.String()),
            "Chat calls that gave label and span (keys of the response store); empty if the classifier decided.",
        ),
    },
    ("turn_id",),
    "month",
)
UNMET_WISHES = Table(
    "A complaint: a follow-up that asks for another attempt and says what to change.",
    {
        "turn_id": _TURN_ID,
        "conversation_id": _CONVERSATION_ID,
        "user_id": _USER_ID,
        "month": (pl.String(), "Month of the conversation's start, `YYYY-MM`."),
        "asked_at": (TIME, "Time of the message."),
        "wish": (pl.String(), "Group by what is wished; `other wishes` outside of any that has enough users."),
        "topic": (pl.String(), "Group of the request that the complaint is about; `other topics` outside of any that has enough users."),
        "is_resolved": (
            pl.Boolean(),
            "A later message of the user in the conversation is no re-attempt; false also if nobody answered, null if nothing follows.",
        ),
        "call_ids": (pl.List(pl.String()), "Chat calls that named the groups (keys of the response store); empty where key phrases did."),
    },
    ("turn_id",),
)
REATTEMPT_RATES = Table(
    "A cell of the re-attempt table: a level of a dimension, a denominator and a template filter.",
    {
        "dimension": (pl.String(), "`all`, `turn`, `month`, `language` or `model`."),
        "level": (pl.String(), "Of `all`: `all`; of `turn`: `2` to `5`, or `>5`; else the month, language or model."),
        "denominator": (pl.String(), "`user_messages`, `follow_ups`, `conversations` or `users`."),
        "templates": (pl.String(), "`included` or `excluded`: template traffic."),
        "value": (pl.Float64(), "Share of `reattempt_with_feedback`; null if n is 0."),
        "n": (pl.Int64(), "Size of the denominator."),
        "unanswered": (pl.Int64(), "Of them, messages that are last words; of conversations and users, those that have one."),
        "users": (pl.Int64(), "Users (clusters of the interval)."),
        "ci_low": _CI_LOW,
        "ci_high": _CI_HIGH,
    },
    ("dimension", "level", "denominator", "templates"),
)
CONTEXTUAL_DIVERSITY = Table(
    "A corpus and the mean pairwise cosine distance between its prompt contexts.",
    {
        "corpus": (pl.String(), "Which prompts."),
        "value": (pl.Float64(), "Mean pairwise cosine distance, exact; null if n < 2."),
        "n": (pl.Int64(), "Prompt contexts: distinct opening requests."),
        "encoder": (pl.String(), "Sentence encoder."),
        "ci_low": _CI_LOW,
        "ci_high": _CI_HIGH,
        "users": (pl.Int64(), "Users (clusters of the intervals); n if the corpus does not know them."),
        "vendi_score": (pl.Float64(), "Vendi score, cosine kernel, q = 1: effective number of different prompts; grows with n."),
        "cluster_entropy": (
            pl.Float64(),
            "Entropy in bits of the shares of k-means clusters of all corpora, mean of 10 fits; grows with n.",
        ),
        "matched_n": (pl.Int64(), "Size at which corpora are compared: half of the smallest; null for fewer than 50 prompts."),
        "vendi_score_matched": (pl.Float64(), "Mean Vendi score of subsamples of that size."),
        "vendi_ci_low": (pl.Float64(), "Lower end of its 95 % interval."),
        "vendi_ci_high": (pl.Float64(), "Upper end of its 95 % interval."),
        "cluster_entropy_matched": (pl.Float64(), "Mean cluster entropy of subsamples of that size."),
        "cluster_ci_low": (pl.Float64(), "Lower end of its 95 % interval."),
        "cluster_ci_high": (pl.Float64(), "Upper end of its 95 % interval."),
    },
    ("corpus",),
)
WILDLLAMACHAT = Table(
    "A user message that got a reply, with the reply regenerated by the policy beside the logged one.",
    {
        "turn_id": _TURN_ID,
        "conversation_id": _CONVERSATION_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "turn": _TURN,
        "asked_at": (TIME, "Time of the user message."),
        "prompt": (pl.String(), "The user message."),
        "history": (MESSAGES, "Earlier messages of the conversation with regenerated replies."),
        "logged_reply": (pl.String(), "The logged reply."),
        "reply": (pl.String(), "The regenerated reply; null if it could not be generated."),
        "error": (pl.String(), "Why there is no regenerated reply; null if there is one."),
        "model": _MODEL,
        "follow_up_id": (pl.String(), "The user's next message, answered or not; null if there is none."),
        "follow_up": (pl.String(), "Its text."),
        "follow_up_applies": (
            pl.Boolean(),
            "Whether what the follow-up criticises exists in the regenerated reply; null if that cannot be told.",
        ),
        "applies_probability": (pl.Float64(), "The judge's probability of `follow_up_applies`; null where a rule decided."),
        "applies_judge": (
            pl.String(),
            "Who decided: `rule`, `town`, `village`, or the judging model; null where there is nothing to decide.",
        ),
        "call_id": _CALL_ID,
        "applies_call_id": (pl.String(), "The judge's call; null where a rule decided."),
    },
    ("turn_id",),
    "month",
)
PERSONAS = Table(
    "A version of a persona line, valid from one moment until it is revised.",
    {
        "persona_line_id": (pl.String(), "Digest of user, slot, line and the moment it became valid."),
        "user_id": _USER_ID,
        "slot": (
            pl.String(),
            "What versions of a line share: a `rlhi_dagster.feedback.Aspect`, `languages`, `domains`, or `line-<n>` of a language model.",
        ),
        "line": (pl.String(), "The line as a model reads it."),
        "valid_from": (TIME, "Time of the latest message that was read for it; usable strictly after."),
        "valid_until": (TIME, "When it was revised or withdrawn; null if current."),
        "evidence": (pl.List(pl.String()), "User messages that support the line (`turn_id`s); empty only for a correction."),
        "quotes": (pl.List(pl.String()), "The words of each message that support it, verbatim; null where the whole message does."),
        "writer": (pl.String(), "`extractive`, the writing model, or `correction` by the user."),
        "call_id": (pl.String(), "The model call that wrote it; null if no model did."),
    },
    ("persona_line_id",),
)
REWRITES = Table(
    "A criticised reply and its rewrite by one strategy.",
    {
        "rewrite_id": (pl.String(), "Digest of turn and strategy."),
        "turn_id": (pl.String(), "The turn whose reply drew the feedback."),
        "user_id": _USER_ID,
        "month": _MONTH,
        "follow_up_id": (pl.String(), "The user message that carries the feedback."),
        "asked_at": (TIME, "Time of the criticised turn's user message."),
        "strategy": _STRATEGY,
        "prompt": _PROMPT,
        "original": (pl.String(), "The reply that drew the feedback: regenerated, or the logged one if `is_off_policy`."),
        "feedback": (pl.String(), "The follow-up's text."),
        "rewrite": (pl.String(), "The rewritten reply, after repair if there was one; null on error."),
        "error": (pl.String(), "Why there is no rewrite; null if there is one."),
        "is_repaired": (pl.Boolean(), "The first rewrite spoke of the feedback or apologised, and was asked for once more."),
        "mentions_feedback": (pl.Boolean(), "The rewrite still speaks of the feedback or apologises; null without a rewrite."),
        "meets_feedback": (
            pl.Float64(),
            "Probability, by the pair judge, that the rewrite does what the feedback asks; null if it cannot be told.",
        ),
        "pair_judge": (pl.String(), "Who says so: `rule`, `town`, `village`, or the judging model."),
        "follow_up_applies": (
            pl.Boolean(),
            "From `wildllamachat`; true where the original is the logged reply, false where only that one declines.",
        ),
        "is_off_policy": _IS_OFF_POLICY,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": _MODEL,
        "call_ids": (pl.List(pl.String()), "Model calls that wrote, repaired and judged it (keys of the response store)."),
    },
    ("rewrite_id",),
    "month",
)
REWRITE_PAIRS = Table(
    "A candidate preference pair from a rewrite, kept or dropped.",
    {
        "pair_id": (pl.String(), "The `rewrite_id`."),
        "turn_id": (pl.String(), "The turn whose reply is compared."),
        "user_id": _USER_ID,
        "month": _MONTH,
        "follow_up_id": (pl.String(), "The user message that carries the feedback."),
        "asked_at": (TIME, "Time of the compared turn's user message."),
        "strategy": _STRATEGY,
        "prompt": _PROMPT,
        "chosen": _CHOSEN,
        "rejected": _REJECTED,
        "is_off_policy": _IS_OFF_POLICY,
        "meets_feedback": (pl.Float64(), "From `rewrites`."),
        "chosen_reward": _CHOSEN_REWARD,
        "rejected_reward": _REJECTED_REWARD,
        "is_kept": _IS_KEPT,
        "drop_reasons": _DROP_REASONS,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": _MODEL,
        "reward_model": _REWARD_MODEL,
        "call_ids": (pl.List(pl.String()), "Model calls that wrote, repaired, judged and scored it (keys of the response store)."),
    },
    ("pair_id",),
    "month",
)
EXPLICIT_PAIRS = Table(
    "A candidate preference pair from an edit, a regeneration or a choice between drafts, kept or dropped.",
    {
        "pair_id": (pl.String(), "Digest of `feedback_id`."),
        "feedback_id": (pl.String(), "What was said: a row of `explicit_feedback`."),
        "turn_id": (pl.String(), "The turn whose reply is compared."),
        "user_id": _USER_ID,
        "month": _MONTH,
        "asked_at": (TIME, "Time of the compared turn's user message."),
        "kind": (pl.String(), "`edit`, `regeneration` or `choice`."),
        "evidence": (
            pl.String(),
            "How sure the preference is: a `rlhi_dagster.preferences.explicit_pairs.Evidence`; a regeneration alone is `weak`.",
        ),
        "giver": (pl.String(), "Who said it: a `rlhi_dagster.conversations.sources.records.Giver`."),
        "prompt": _PROMPT,
        "chosen": _CHOSEN,
        "rejected": _REJECTED,
        "is_off_policy": _IS_OFF_POLICY,
        "is_kept": _IS_KEPT,
        "drop_reasons": _DROP_REASONS,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": (pl.String(), "Who wrote the preferred side: `logged`, or of an edit the giver."),
    },
    ("pair_id",),
    "month",
)
CANDIDATES = Table(
    "One of N replies sampled for an opening request.",
    {
        "candidate_id": (pl.String(), "`turn_id#sample_index`."),
        "turn_id": _TURN_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "asked_at": (TIME, "Time of the request."),
        "prompt": _PROMPT,
        "sample_index": (pl.Int32(), "0 to N - 1."),
        "reply": (pl.String(), "The sampled reply; null on error."),
        "error": (pl.String(), "Why there is no reply; null if there is one."),
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": _MODEL,
        "call_id": _CALL_ID,
    },
    ("candidate_id",),
    "month",
)
CANDIDATE_REWARDS = Table(
    "The reward of a candidate under one persona condition.",
    {
        "candidate_id": (pl.String(), "The candidate."),
        "condition": (pl.String(), "`own`, `shuffled` (another user's persona) or `none` (no persona)."),
        "turn_id": _TURN_ID,
        "month": _MONTH,
        "persona_user_id": (pl.String(), "User whose persona the reward model saw; null for `none`."),
        "reward": (pl.Float64(), "Scalar reward; null on error."),
        "error": (pl.String(), "Why there is no reward; null if there is one."),
        "reward_model": _REWARD_MODEL,
        "call_id": _CALL_ID,
    },
    ("candidate_id", "condition"),
    "month",
)
REWARD_PAIRS = Table(
    "The best against the worst candidate of a request under one persona condition, kept or dropped.",
    {
        "pair_id": (pl.String(), "Digest of the pair."),
        "turn_id": _TURN_ID,
        "user_id": _USER_ID,
        "month": _MONTH,
        "asked_at": (TIME, "Time of the request."),
        "condition": (pl.String(), "Persona that the reward model saw: `own`, `shuffled` or `none`."),
        "prompt": _PROMPT,
        "chosen": _CHOSEN,
        "rejected": _REJECTED,
        "chosen_id": (pl.String(), "The preferred candidate."),
        "rejected_id": (pl.String(), "The dispreferred candidate."),
        "chosen_reward": _CHOSEN_REWARD,
        "rejected_reward": _REJECTED_REWARD,
        "is_kept": _IS_KEPT,
        "drop_reasons": _DROP_REASONS,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": _MODEL,
        "reward_model": _REWARD_MODEL,
        "call_ids": (pl.List(pl.String()), "Model calls that wrote and scored both sides (keys of the response store)."),
    },
    ("pair_id",),
    "month",
)
REWARD_MODEL_SCORES = Table(
    "How often the reward model prefers the preferred reply of held-out pairs, under one persona condition.",
    {
        "pairs": (
            pl.String(),
            "Which pairs: `rewrite_pairs` (of users that it was not trained on), or the name of a set of human preferences.",
        ),
        "condition": (pl.String(), "Persona that the reward model saw: `own`, `shuffled` (another user's) or `none`."),
        "value": (pl.Float64(), "Share of pairs whose preferred reply has the higher reward; a tie counts half; null if n is 0."),
        "n": (pl.Int64(), "Pairs with both rewards."),
        "users": (pl.Int64(), "Users (clusters of the interval); n where the set knows none."),
        "ci_low": _CI_LOW,
        "ci_high": _CI_HIGH,
        "reward_model": _REWARD_MODEL,
    },
    ("pairs", "condition"),
)
REASONING_ERRORS = Table(
    "An erroneous solution (PRM800K `found_error`) and the simulated user's remark on it.",
    {
        "error_id": (pl.String(), "Digest of problem and solution."),
        "problem": (pl.String(), "The problem."),
        "steps": (pl.List(pl.String()), "The steps of the erroneous solution, up to and with the first wrong one."),
        "solution": (pl.String(), "The steps as one text."),
        "first_error_step": (pl.Int32(), "1-based number of the first wrong step: how many steps there are."),
        "feedback": (pl.String(), "What the simulated user says; null on error."),
        "error": (pl.String(), "Why the simulated user said nothing; null if it did."),
        "answer": (pl.String(), "Known answer; null if there is none."),
        "simulated_user": (pl.String(), "`template`, or the model that spoke."),
        "call_id": (pl.String(), "The simulated user's call; null for the template."),
    },
    ("error_id",),
)
REASONING_PAIRS = Table(
    "A corrected solution against the erroneous one, kept or dropped.",
    {
        "pair_id": (pl.String(), "Digest of the pair."),
        "error_id": (pl.String(), "The erroneous solution."),
        "prompt": _PROMPT,
        "chosen": (pl.String(), "The rewritten solution; null on error."),
        "rejected": _REJECTED,
        "is_chosen_correct": (pl.Boolean(), "Whether the rewrite gives the known answer (math-verify); null if it cannot be checked."),
        "is_rejected_correct": (
            pl.Boolean(),
            "Whether the original gives the known answer nevertheless; null if it gives none or cannot be checked.",
        ),
        "is_kept": _IS_KEPT,
        "drop_reasons": _DROP_REASONS,
        "model": _MODEL,
        "call_ids": (pl.List(pl.String()), "Model calls of the remark and the rewrite (keys of the response store)."),
    },
    ("pair_id",),
)
PREFERENCE_PAIRS = Table(
    "A preference pair that some source kept, with its provenance: ready for training, or dropped here with the reasons.",
    {
        "pair_id": (pl.String(), "Digest of the pair; the same as in the source's table."),
        "source": (pl.String(), "One of `rlhi_dagster.preferences.Source`."),
        "split": (pl.String(), "`train` or `validation`, by `split_group` of the user."),
        "is_kept": (pl.Boolean(), "Whether recipes may train on it."),
        "drop_reasons": _DROP_REASONS,
        "duplicate_of": (pl.String(), "The pair that stays of an exact or near duplicate; null if it is none."),
        "contaminated_by": (pl.String(), "The evaluation item (`prompt_id`) that the pair's prompt repeats; null if none."),
        "contaminated_how": (pl.String(), "How that was seen: a `rlhi_dagster.preferences.decontamination.Kind`; null if it repeats none."),
        "contamination_similarity": (pl.Float64(), "Cosine similarity to the item where embeddings saw it; null elsewhere."),
        "user_id": (pl.String(), "Salted fingerprint of the user's connection; null for `reasoning`."),
        "turn_id": (pl.String(), "The turn whose reply is compared; null for `reasoning`."),
        "follow_up_id": (pl.String(), "The message that carries the feedback; null where none does."),
        "error_id": (pl.String(), "The erroneous solution; null outside `reasoning`."),
        "asked_at": (TIME, "Time of the compared turn's user message; null for `reasoning`."),
        "prompt": _PROMPT,
        "chosen": _CHOSEN,
        "rejected": _REJECTED,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "strategy": (pl.String(), "How chosen was made: a `Strategy`, `best_of_n`, `corrected`, or of what users say outright its kind."),
        "is_off_policy": (pl.Boolean(), "As in `rewrite_pairs` and `explicit_pairs`; false for other sources."),
        "meets_feedback": (pl.Float64(), "As in `rewrite_pairs`; null for other sources."),
        "model": _MODEL,
        "reward_model": (pl.String(), "Reward model that scored the pair; null where none did."),
        "chosen_reward": _CHOSEN_REWARD,
        "rejected_reward": _REJECTED_REWARD,
        "call_ids": (pl.List(pl.String()), "Model calls that made the pair (keys of the response store)."),
    },
    ("pair_id",),
)
_ROUND_SPLIT = (pl.String(), "`train` or `validation`, by user, as in `preference_pairs`.")
THUMB_EXAMPLES = Table(
    "A logged reply with a user's thumb as an unpaired example, once as the thumb was given and once, if kept, with shuffled thumbs.",
    {
        "pair_id": (pl.String(), "Digest of source and turn; the example is a pair of which one side is missing."),
        "source": (pl.String(), "One of `rlhi_dagster.training.thumbs.Thumbs`."),
        "split": _ROUND_SPLIT,
        "is_kept": (pl.Boolean(), "Whether recipes may train on it."),
        "drop_reasons": _DROP_REASONS,
        "duplicate_of": (pl.String(), "The example that stays of an exact or near duplicate; null if it is none."),
        "contaminated_by": (pl.String(), "The evaluation item (`prompt_id`) that the prompt repeats; null if none."),
        "contaminated_how": (pl.String(), "As in `preference_pairs`."),
        "contamination_similarity": (pl.Float64(), "As in `preference_pairs`."),
        "user_id": _USER_ID,
        "conversation_id": _CONVERSATION_ID,
        "turn_id": (pl.String(), "The turn whose reply got the thumb."),
        "asked_at": (TIME, "Time of the turn's user message."),
        "prompt": _PROMPT,
        "chosen": (pl.String(), "The logged reply if the thumb is up; null if it is down."),
        "rejected": (pl.String(), "The logged reply if the thumb is down; null if it is up."),
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
    },
    ("pair_id",),
)
FOLLOW_UP_EXAMPLES = Table(
    "A logged reply with what its user said next, and, if kept, once more with what another user said after another reply.",
    {
        "pair_id": (pl.String(), "Digest of source and turn; recipes draw an example as they draw a pair."),
        "source": (pl.String(), "One of `rlhi_dagster.training.follow_ups.FollowUps`."),
        "split": _ROUND_SPLIT,
        "is_kept": (pl.Boolean(), "Whether recipes may train on it."),
        "drop_reasons": _DROP_REASONS,
        "duplicate_of": (pl.String(), "The example that stays of an exact or near duplicate; null if it is none."),
        "contaminated_by": (pl.String(), "The evaluation item (`prompt_id`) that the prompt repeats; null if none."),
        "contaminated_how": (pl.String(), "As in `preference_pairs`."),
        "contamination_similarity": (pl.Float64(), "As in `preference_pairs`."),
        "user_id": _USER_ID,
        "conversation_id": _CONVERSATION_ID,
        "turn_id": (pl.String(), "The turn whose reply was followed by another message."),
        "follow_up_turn_id": (pl.String(), "The turn of the follow-up; in the control another user's."),
        "asked_at": (TIME, "Time of the turn's user message."),
        "prompt": _PROMPT,
        "reply": (pl.String(), "The logged reply."),
        "follow_up": (pl.String(), "What the teacher is told: the next message of the user, or in the control another user's."),
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
    },
    ("pair_id",),
)
_ROUND = (pl.Int32(), "The online round, from 1.")
ONLINE_CANDIDATES = Table(
    "One of N replies that the policy of an online round wrote to a request, and its reward under the user's own persona.",
    {
        "candidate_id": (pl.String(), "`recipe/round/turn_id#sample_index`."),
        "recipe": _RECIPE,
        "round": _ROUND,
        "split": _ROUND_SPLIT,
        "turn_id": _TURN_ID,
        "user_id": _USER_ID,
        "asked_at": (TIME, "Time of the request."),
        "prompt": _PROMPT,
        "sample_index": (pl.Int32(), "0 to N - 1."),
        "reply": (pl.String(), "The sampled reply; null on error."),
        "reward": (pl.Float64(), "Scalar reward; null on error."),
        "error": (pl.String(), "Why there is no reply or no reward; null if there are both."),
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": (pl.String(), "Policy of the round, which wrote the reply: Hub id and revision, or digest of the local weights."),
        "reward_model": (pl.String(), "Reward model: Hub id and revision, or digest of the local weights; null without a reply."),
        "call_id": _CALL_ID,
        "reward_call_id": (pl.String(), "The reward model's call; null without a reply."),
    },
    ("candidate_id",),
    "recipe",
)
ONLINE_PAIRS = Table(
    "A better against a worse candidate of an online round: trained or validated on in that round, or dropped.",
    {
        "pair_id": (pl.String(), "Digest of recipe, round and candidates."),
        "recipe": _RECIPE,
        "round": _ROUND,
        "split": _ROUND_SPLIT,
        "turn_id": _TURN_ID,
        "user_id": _USER_ID,
        "asked_at": (TIME, "Time of the request."),
        "prompt": _PROMPT,
        "chosen": _CHOSEN,
        "rejected": _REJECTED,
        "chosen_id": (pl.String(), "The preferred candidate."),
        "rejected_id": (pl.String(), "The dispreferred candidate."),
        "chosen_reward": _CHOSEN_REWARD,
        "rejected_reward": _REJECTED_REWARD,
        "is_kept": (pl.Boolean(), "Whether the round trained or validated on it."),
        "drop_reasons": _DROP_REASONS,
        "persona": _PERSONA,
        "persona_line_ids": _PERSONA_LINE_IDS,
        "model": (pl.String(), "Policy of the round, which wrote both sides: Hub id and revision, or digest of the local weights."),
        "reward_model": _REWARD_MODEL,
        "call_ids": (pl.List(pl.String()), "Model calls that wrote and scored both sides (keys of the response store)."),
    },
    ("pair_id",),
    "recipe",
)
TOKEN_BUDGET = Table(
    "How many of a recipe's pairs have one fate at the recipe's training length.",
    {
        "recipe": (pl.String(), "The training recipe."),
        "split": (pl.String(), "`train` or `validation`."),
        "fate": (pl.String(), "One of `rlhi_dagster.training.budget.Fate`: what training would do with them."),
        "pairs": (pl.Int64(), "Pairs of that fate."),
        "max_length_tokens": (pl.Int64(), "The recipe's `max_length`."),
        "median_tokens": (pl.Float64(), "Median length of the longer side with its prompt."),
        "p95_tokens": (pl.Float64(), "95th percentile of it."),
        "most_tokens": (pl.Int64(), "The longest."),
        "total_tokens": (pl.Int64(), "Tokens of both sides, prompts counted twice: what an epoch reads."),
    },
    ("recipe", "split", "fate"),
)
EVAL_PROMPTS = Table(
    "An evaluation item.",
    {
        "prompt_id": _PROMPT_ID,
        "benchmark": (pl.String(), "One of `rlhi_dagster.evaluation.Benchmark`; those of UserEval begin with `user_eval`."),
        "user_id": (pl.String(), "The evaluated user; null outside UserEval."),
        "turn_id": (pl.String(), "The request; null outside UserEval."),
        "turn": (pl.Int32(), "1 for an opening request, 2 for the first follow-up, and so on; null outside UserEval."),
        "asked_at": (TIME, "Time of the request; null outside UserEval."),
        "prompt": _PROMPT,
        "persona_condition": (
            pl.String(),
            "`own`, `shuffled` (another user's), `empty`, or `cut` (own, of the first conversations alone); null outside UserEval.",
        ),
        "persona_user_id": (pl.String(), "Whose persona is shown; null if nobody's, and outside UserEval."),
        "persona": (pl.String(), "Persona shown to the model: lines valid before the conversation began; empty if none."),
        "persona_line_ids": _PERSONA_LINE_IDS,
        "known_of_user": (
            pl.String(),
            "What a judge is told of the evaluated user, whatever the model was shown: the own lines, each with the words that support it.",
        ),
        "earlier_conversations": (pl.Int64(), "Conversations of the user before this one; null outside UserEval."),
        "reference": (
            pl.String(),
            "Known answer; null where there is none. Several that are all asked for stand between commas; of `safety` JSON.",
        ),
        "tolerance": (pl.Float64(), "Largest absolute difference of a number from the known answer; null if it must be exact."),
    },
    ("prompt_id",),
)
RESPONSES = Table(
    "A checkpoint's reply to an evaluation item.",
    {
        "response_id": (pl.String(), "`recipe/prompt_id`."),
        "recipe": _RECIPE,
        "prompt_id": _PROMPT_ID,
        "benchmark": (pl.String(), "The benchmark of the item."),
        "reply": (pl.String(), "The reply; null on error."),
        "error": (pl.String(), "Why there is no reply; null if there is one."),
        "model": _MODEL,
        "call_id": _CALL_ID,
    },
    ("response_id",),
    "recipe",
)
JUDGEMENTS = Table(
    "One judge's verdict on one pair of replies in one order.",
    {
        "judgement_id": (pl.String(), "Digest of recipe, opponent, item, judge, order and criterion."),
        "recipe": _RECIPE,
        "prompt_id": _PROMPT_ID,
        "benchmark": (pl.String(), "The benchmark of the item."),
        "user_id": (pl.String(), "The evaluated user (cluster of the intervals); null outside `user_eval`."),
        "opponent": (pl.String(), "The recipe compared with."),
        "judge": (pl.String(), "Name of the judge; of a model with its revision."),
        "criterion": (pl.String(), "What was asked: one of `rlhi_dagster.evaluation.Criterion`."),
        "prompt_version": (pl.String(), "Digest of the judge's question before texts are put in; null where none was asked."),
        "order": (pl.String(), "`recipe_first` or `opponent_first`."),
        "verdict": (pl.String(), "`recipe`, `opponent` or `tie`; null if the judge gave none."),
        "error": (pl.String(), "Why there is no verdict; null if there is one."),
        "recipe_probability": (pl.Float64(), f"Of the verdict `recipe`, by the judging model; {_NO_PROBABILITY}"),
        "opponent_probability": (pl.Float64(), f"Of the verdict `opponent`, by the judging model; {_NO_PROBABILITY}"),
        "tie_probability": (pl.Float64(), f"Of the verdict `tie`, by the judging model; {_NO_PROBABILITY}"),
        "preferences_met": (pl.Float64(), "Share of the user's preferences that the recipe's reply meets; null if the judge cannot tell."),
        "is_correct": (pl.Boolean(), "Whether the recipe's reply has the known answer; null where there is none."),
        "is_malformed": (
            pl.Boolean(),
            "Whether the recipe's reply is broken text, by the judge if it can tell, else by signs in the text; null without a reply.",
        ),
        "recipe_characters": (pl.Int64(), "Length of the recipe's reply; null without one."),
        "opponent_characters": (pl.Int64(), "Length of the opponent's reply; null without one."),
        "call_id": (
            pl.String(),
            "The judging model's call (key of the response store), a reward model's on the recipe's reply; null where none was asked.",
        ),
        "opponent_call_id": (pl.String(), "A reward model's call on the opponent's reply; null for other judges."),
    },
    ("judgement_id",),
    "recipe",
)
JUDGE_CALIBRATION = replace(
    JUDGEMENTS,
    grain="One judge's verdict, in one order, on a pair that a person ranked.",
    columns={
        **JUDGEMENTS.columns,
        "recipe": (pl.String(), "`chosen`: the reply that the person preferred."),
        "benchmark": (
            pl.String(),
            "Name of the set of pairs; ends with `+instruction` or `+note` where the other reply has one.",
        ),
        "user_id": (pl.String(), "Null: nobody knows whose the pairs are."),
        "opponent": (pl.String(), "`rejected`: the other reply."),
    },
    partition_column=None,
)
JUDGE_QUALITY = Table(
    "A figure of a judge, or of two.",
    {
        "judge": (pl.String(), "Name of the judge."),
        "other_judge": (pl.String(), "The judge compared with; `none` for figures of one."),
        "criterion": (pl.String(), "What was asked: one of `rlhi_dagster.evaluation.Criterion`."),
        "items": (pl.String(), "`user_eval`, or the set of calibration pairs."),
        "figure": (pl.String(), "One of `rlhi_dagster.evaluation.judge_quality.Figure`."),
        "value": (pl.Float64(), "The figure."),
        "n": (pl.Int64(), "Pairs of replies behind it."),
        "users": (pl.Int64(), "Users behind it (clusters of the interval); pairs where there are no users."),
        "ci_low": _CI_LOW,
        "ci_high": _CI_HIGH,
        "remark": (pl.String(), "That the judge failed, or why the figure says little; null if nothing is to be said."),
    },
    ("judge", "other_judge", "criterion", "items", "figure"),
)
SCORES = Table(
    "A metric of a recipe on a benchmark.",
    {
        "recipe": _RECIPE,
        "benchmark": (pl.String(), "The benchmark."),
        "metric": (pl.String(), "One of `rlhi_dagster.evaluation.Metric`."),
        "value": (pl.Float64(), "The metric; null if n is 0."),
        "n": (pl.Int64(), "Items behind it."),
        "users": (pl.Int64(), "Users behind it (clusters of the interval); items where there are no users."),
        "ci_low": _CI_LOW,
        "ci_high": _CI_HIGH,
        "remark": (pl.String(), "Why the number says little, too few items for one; null if nothing is to be said."),
        "judge": (pl.String(), "Name of the judge."),
    },
    ("recipe", "benchmark", "metric", "judge"),
    "recipe",
)

BENCHMARK_ITEMS = replace(EVAL_PROMPTS, grain="An item of a public benchmark.")
BENCHMARK_RESPONSES = Table(
    "A checkpoint's reply to an item of a public benchmark.",
    {
        **{name: RESPONSES.columns[name] for name in ("response_id", "recipe", "prompt_id", "benchmark")},
        "sample": (pl.Int64(), "Which of several replies to the same item, from 0."),
        **{name: RESPONSES.columns[name] for name in ("reply", "error", "model", "call_id")},
    },
    ("recipe", "prompt_id", "sample"),
    "recipe",
)
BENCHMARK_RATINGS = Table(
    "One judge's rating of a reply to a public benchmark, or of one against an opponent's in one order.",
    {
        "recipe": _RECIPE,
        "prompt_id": _PROMPT_ID,
        "benchmark": (pl.String(), "The benchmark of the item."),
        "opponent": (pl.String(), "Whose reply it is compared with; empty where replies are rated alone."),
        "judge": (pl.String(), "Name of the judge."),
        "order": (pl.String(), "`recipe_first` or `opponent_first`; `alone` where replies are rated alone."),
        "rating": (pl.Float64(), "On the benchmark's scale, high where the recipe's reply is better; null if the judge gave none."),
        "expected_rating": (
            pl.Float64(),
            "Mean rating by the judging model's probabilities; the rating itself where it does not tell them.",
        ),
        "error": (pl.String(), "Why there is no rating; null if there is one."),
        "call_id": (pl.String(), "The judging model's call (key of the response store); null where no model was asked."),
    },
    ("recipe", "prompt_id", "opponent", "judge", "order"),
    "recipe",
)
BENCHMARK_GRADES = Table(
    "Whether a reply to an item with a known answer gives it.",
    {
        "recipe": _RECIPE,
        "prompt_id": _PROMPT_ID,
        "benchmark": (pl.String(), "The benchmark of the item."),
        "sample": (pl.Int64(), "Which of several replies to the same item, from 0."),
        "grade": (pl.String(), "`right`, `wrong`, `no_answer` or `undecided`."),
    },
    ("recipe", "prompt_id", "sample"),
    "recipe",
)
BENCHMARK_SCORES = replace(SCORES, grain="A metric of a recipe on a public benchmark.")

TABLES: dict[str, Table] = {name.lower(): value for name, value in list(globals().items()) if isinstance(value, Table)}
