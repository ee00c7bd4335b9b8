"""Criticised replies, their rewrites by strategy, and the rewrites as candidate pairs.

Chosen = rewrite, rejected = original; the pair's prompt ends before the original, so what is learnt is to get it right the first time.

What belongs here: which replies are rewritten, and the tables ``rewrites`` and ``rewrite_pairs``. What does not: what the rewriting
model is asked (``rewriter``), the judge (``pair_judge``), and the reasons against a pair that its texts give (``filters``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import REWRITE_PAIRS, REWRITES
from rlhi_dagster.engines.base import RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.preferences.feedback_talk import mentions_feedback
from rlhi_dagster.preferences.filters import DropReason, reasons
from rlhi_dagster.preferences.pair_judge import Judged, PairJudge, Rewritten
from rlhi_dagster.preferences.refusals import is_refusal
from rlhi_dagster.preferences.rewriter import Rewrite, Rewriter, last_message
from rlhi_dagster.preferences.settings import PairFilterSettings, RewriteSettings

LOGGED_MODEL = "logged"
"""``rewrites.model`` of logged replies; which model it was is in ``conversations.assistant``."""

Snapshot = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""``personas.snapshots.personas_at``: adds ``persona`` and ``persona_line_ids`` to rows with ``user_id`` and ``asked_at``."""

_TEXT = pl.String()
_KEYS = ("turn_id", "user_id", "month", "follow_up_id", "asked_at")


def criticised(
    chat: pl.DataFrame,
    labels: pl.DataFrame,
    users: pl.DataFrame,
    personas: pl.DataFrame,
    settings: RewriteSettings,
    snapshot: Snapshot,
) -> pl.DataFrame:
    """Replies of training users that drew a re-attempt with feedback, once for each strategy, with the persona as of the request.

    Strategies ``feedback`` and ``scratch`` are about the regenerated reply, or, with ``inapplicable: logged``, the logged one where the
    criticism does not fit it; a reply that could not be regenerated has neither. Strategy ``logged`` is about the logged conversation,
    and has no row where no reply to the feedback follows in it.

    Args:
        chat: ``WILDLLAMACHAT`` of whole conversations.
        labels: ``FEEDBACK_LABELS`` of the same conversations.
        users: ``USERS``.
        personas: ``PERSONAS``.
        settings: Strategies, the least probability, and what to do where the criticism does not fit.
        snapshot: See ``Snapshot``.

    Returns:
        Columns of ``REWRITES`` up to ``feedback``, plus ``follow_up_applies``, ``is_off_policy``, ``persona``, ``persona_line_ids`` and
        ``logged_rewrite`` (of strategy ``logged``); sorted by turn and strategy.
    """
    is_feedback = (pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value) & (
        pl.col("reattempt_probability") >= settings.min_feedback_probability
    )
    rows = (
        chat.rename({"follow_up": "feedback"})
        .join(labels.filter(is_feedback).select(follow_up_id="turn_id"), on="follow_up_id", how="semi")
        .join(users.filter(pl.col("split") == "train"), on="user_id", how="semi")
    )
    regenerated = _regenerated(_without_answered_refusals(rows), takes_logged=settings.inapplicable == "logged")
    logged = _logged(rows, chat)
    sides = {Strategy.FEEDBACK: regenerated, Strategy.SCRATCH: regenerated, Strategy.LOGGED: logged}
    found = pl.concat(sides[strategy].with_columns(strategy=pl.lit(strategy.value)) for strategy in settings.strategies)
    ids = [digest_of("rewrite", *key) for key in found.select("turn_id", "strategy").iter_rows()]
    return snapshot(personas, found.with_columns(rewrite_id=pl.Series(ids, dtype=_TEXT)).sort("turn_id", "strategy"))


def _without_answered_refusals(rows: pl.DataFrame) -> pl.DataFrame:
    """Criticism of a logged refusal does not fit a regenerated reply that answers, whatever else of it might."""
    both = rows.select("logged_reply", "reply").iter_rows()
    is_answered = [reply is not None and is_refusal(logged) and not is_refusal(reply) for logged, reply in both]
    applies = pl.when(pl.Series(is_answered, dtype=pl.Boolean())).then(pl.lit(False)).otherwise("follow_up_applies")
    return rows.with_columns(applies.alias("follow_up_applies"))


def _regenerated(rows: pl.DataFrame, *, takes_logged: bool) -> pl.DataFrame:
    """The policy's replies with their own history."""
    is_logged = pl.lit(takes_logged) & pl.col("follow_up_applies").eq_missing(False)
    return rows.filter(pl.col("reply").is_not_null()).select(
        *_KEYS,
        pl.concat_list("history", pl.struct(role=pl.lit("user"), content="prompt")).alias("prompt"),
        pl.when(is_logged).then("logged_reply").otherwise("reply").alias("original"),
        "feedback",
        pl.when(is_logged).then(pl.lit(True)).otherwise("follow_up_applies").alias("follow_up_applies"),
        is_logged.alias("is_off_policy"),
        pl.lit(None, dtype=_TEXT).alias("logged_rewrite"),
    )


def _logged(rows: pl.DataFrame, chat: pl.DataFrame) -> pl.DataFrame:
    """The logged replies with the logged history, and the logged replies to the feedback, where there are any."""
    replies = chat.select(follow_up_id="turn_id", logged_rewrite="logged_reply")
    rows = rows.join(replies, on="follow_up_id", how="inner")
    wanted = rows.select("turn_id", "conversation_id", last="turn")
    said = chat.select("conversation_id", "turn", "prompt", "logged_reply").join(wanted, on="conversation_id", how="inner")
    user, assistant = (pl.struct(role=pl.lit(role), content=column) for role, column in (("user", "prompt"), ("assistant", "logged_reply")))
    messages = (
        said.filter(pl.col("turn") <= pl.col("last"))
        .sort("turn_id", "turn")
        .group_by("turn_id", maintain_order=True)
        .agg(pl.concat_list(user, assistant).explode().alias("prompt"))
        .with_columns(pl.col("prompt").list.head(pl.col("prompt").list.len() - 1))
    )
    return (
        rows.drop("prompt")
        .join(messages, on="turn_id", how="inner")
        .select(
            *_KEYS,
            "prompt",
            pl.col("logged_reply").alias("original"),
            "feedback",
            pl.lit(True).alias("follow_up_applies"),
            pl.lit(True).alias("is_off_policy"),
            "logged_rewrite",
        )
    )


def rewrites(rows: pl.DataFrame, rewriter: Rewriter, judge: PairJudge) -> pl.DataFrame:
    """``REWRITES`` from what ``criticised`` returns: written, repaired and judged."""
    given = rows.to_dicts()
    answers = iter(rewriter.write([row for row in given if row["strategy"] != Strategy.LOGGED]))
    made = [_taken(row) if row["strategy"] == Strategy.LOGGED else next(answers) for row in given]
    verdicts = iter(judge.meets([_item(row, each.text) for row, each in zip(given, made, strict=True) if each.text is not None]))
    judged = [Judged(None) if each.text is None else next(verdicts) for each in made]
    return REWRITES.conform(
        rows.with_columns(
            rewrite=pl.Series([each.text for each in made], dtype=_TEXT),
            error=pl.Series([each.error for each in made], dtype=_TEXT),
            is_repaired=pl.Series([each.is_repaired for each in made], dtype=pl.Boolean()),
            mentions_feedback=pl.Series([each.mentions_feedback for each in made], dtype=pl.Boolean()),
            meets_feedback=pl.Series(map(_probability, judged), dtype=pl.Float64()),
            pair_judge=pl.lit(judge.name),
            model=pl.when(pl.col("strategy") == Strategy.LOGGED.value).then(pl.lit(LOGGED_MODEL)).otherwise(pl.lit(rewriter.model)),
            call_ids=pl.Series(
                [[*each.call_ids, *verdict.call_ids] for each, verdict in zip(made, judged, strict=True)], dtype=pl.List(_TEXT)
            ),
        )
    )


def _taken(row: Mapping[str, Any]) -> Rewrite:
    return Rewrite(row["logged_rewrite"], None, False, mentions_feedback(row["logged_rewrite"], last_message(row)), ())


def _item(row: Mapping[str, Any], rewrite: str) -> Rewritten:
    return Rewritten(row["prompt"], row["original"], row["feedback"], rewrite)


def _probability(verdict: Judged) -> float | None:
    if verdict.probability is not None or verdict.holds is None:
        return verdict.probability
    return float(verdict.holds)


def unscored_pairs(rewritten: pl.DataFrame, settings: RewriteSettings) -> pl.DataFrame:
    """Each rewrite as a candidate pair, with every reason against it but the reward model's; see ``filters.reasons``.

    Returns:
        ``REWRITE_PAIRS`` without rewards, one row a rewrite.
    """
    against = [reasons(row, settings) for row in rewritten.to_dicts()]
    return REWRITE_PAIRS.conform(
        rewritten.with_columns(
            pair_id=pl.col("rewrite_id"),
            chosen=pl.col("rewrite").fill_null(""),
            rejected=pl.col("original"),
            chosen_reward=pl.lit(None),
            rejected_reward=pl.lit(None),
            reward_model=pl.lit(None),
            drop_reasons=pl.Series(against, dtype=pl.List(_TEXT)),
            is_kept=pl.Series([not found for found in against], dtype=pl.Boolean()),
        )
    )


def needs_rewards(limits: PairFilterSettings) -> bool:
    """Whether a filter looks at rewards."""
    return limits.min_reward is not None or limits.min_reward_margin is not None


def reward_requests(pairs: pl.DataFrame, placement: PersonaPlacement) -> list[RewardRequest]:
    """What the reward model scores: of each pair without a reason against it the rewrite, then the original, under the user's persona."""
    return [
        RewardRequest([*with_persona(row["prompt"], row["persona"], placement), {"role": "assistant", "content": row[side]}])
        for row in pairs.filter("is_kept").to_dicts()
        for side in ("chosen", "rejected")
    ]


def rewrite_pairs(unscored: pl.DataFrame, answers: Sequence[RewardAnswer], limits: PairFilterSettings, reward_model: str) -> pl.DataFrame:
    """The pairs with rewards, and the reasons that follow from them.

    Args:
        unscored: See ``unscored_pairs``.
        answers: To ``reward_requests`` of it.
        limits: Least reward and margin.
        reward_model: Identity of the model that answered.

    Returns:
        ``REWRITE_PAIRS``; pairs that were dropped before have no rewards.
    """
    scored = unscored.filter("is_kept").select(
        "pair_id",
        chosen_reward=pl.Series([answer.reward for answer in answers[::2]], dtype=pl.Float64()),
        rejected_reward=pl.Series([answer.reward for answer in answers[1::2]], dtype=pl.Float64()),
        scoring=pl.Series(
            [[answer.call_id for answer in both if answer.call_id] for both in zip(answers[::2], answers[1::2], strict=True)],
            dtype=pl.List(_TEXT),
        ),
        reward_model=pl.lit(reward_model),
    )
    margin = pl.col("chosen_reward") - pl.col("rejected_reward")
    floor, least = (pl.lit(limit, dtype=pl.Float64()) for limit in (limits.min_reward, limits.min_reward_margin))
    against = {
        DropReason.REWARD_BELOW_FLOOR: pl.col("chosen_reward") < floor,
        DropReason.REWARD_MARGIN_TOO_SMALL: margin < least,
        DropReason.REWARD_FAILED: margin.is_null(),
    }
    found = pl.concat_list(pl.when(holds).then(pl.lit(reason.value)) for reason, holds in against.items()).list.drop_nulls()
    no_calls = pl.lit([], dtype=pl.List(_TEXT))
    pairs = unscored.drop("chosen_reward", "rejected_reward", "reward_model").join(
        scored.with_columns(reward_reasons=found), on="pair_id", how="left"
    )
    return REWRITE_PAIRS.conform(
        pairs.with_columns(
            drop_reasons=pl.concat_list("drop_reasons", pl.col("reward_reasons").fill_null(no_calls)),
            call_ids=pl.concat_list("call_ids", pl.col("scoring").fill_null(no_calls)),
        ).with_columns(is_kept=pl.col("drop_reasons").list.len() == 0)
    )
