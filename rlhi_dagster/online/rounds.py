"""Online rounds: the policy as it is writes candidates, the reward model ranks them, and the pairs train the policy of the next round.

Ours: the paper trains once on pairs that are there. Requests are those of the kept pairs of the recipe's source, so their users are
training users and no evaluation item is among them; each is in one round. Round 1 asks the starting policy what ``candidates`` asked it,
unless the recipe shows no persona.

What belongs here: which request is in which round, what a round asks for, and its tables. What does not: how candidates are ranked
(``preferences/reward_pairs.py``), asking models and training (handed in).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from rlhi_dagster.base.tables import ONLINE_CANDIDATES, ONLINE_PAIRS, PREFERENCE_PAIRS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.preferences import Source
from rlhi_dagster.preferences import candidates as ranking
from rlhi_dagster.preferences.duplicates import duplicates
from rlhi_dagster.preferences.merge import OF_CONDITION
from rlhi_dagster.preferences.reward_pairs import ranked_pairs
from rlhi_dagster.preferences.settings import CandidateSettings

CONDITIONS = {source: condition for condition, source in OF_CONDITION.items()}
"""Whose persona the reward model sees, by the source of the pairs."""
BEYOND_THE_SHARE = "beyond_the_share"
"""Drop reason of a pair that the round has no need for: it has its pairs already, from better ranks or by digest."""

_OF_REQUEST = ("turn_id", "user_id", "asked_at", "prompt", "persona", "persona_line_ids", "split")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rounds of a recipe are to give.

    Attributes:
        recipe: Its name.
        source: Of the pairs whose requests it asks.
        rounds: How many, at least 1.
        pairs: Pairs over all rounds, by split.
        candidates: Sampling and ranking; pairs per request are as many as a round needs.
        near_duplicate_jaccard: As in ``duplicates.duplicates``.
        placement: Where the reward model sees the persona.
        seed: Of the division into rounds and of the draw.
    """

    recipe: str
    source: Source
    rounds: int
    pairs: Mapping[str, int]
    candidates: CandidateSettings
    near_duplicate_jaccard: float
    placement: PersonaPlacement
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What a round made.

    Attributes:
        number: From 1.
        policy: Who wrote the candidates, and the reference of the training that follows.
        candidates: ``ONLINE_CANDIDATES``.
        pairs: ``ONLINE_PAIRS``.
    """

    number: int
    policy: ModelRef
    candidates: pl.DataFrame
    pairs: pl.DataFrame


class RoundError(ValueError):
    """A round that cannot go on; the message says which and why."""


Ask = Callable[[ModelRef, list[ChatRequest]], Sequence[ChatAnswer]]
Score = Callable[[list[RewardRequest]], tuple[str, Sequence[RewardAnswer]]]
"""The reward model's name, and its answers."""
Train = Callable[[Round], ModelRef]
"""Trains the policy of a round on the round's kept pairs."""


def requests(pairs: pl.DataFrame, source: Source, persona: Literal["own", "none"], rounds: int, seed: int) -> pl.DataFrame:
    """The requests of the kept pairs of a source, each in one round, equally many in each as far as that goes.

    Args:
        pairs: ``PREFERENCE_PAIRS``.
        source: Which pairs.
        persona: Whether they are asked with the user's own persona, or with none.
        rounds: How many.
        seed: Changes which request is in which round.

    Returns:
        turn_id, user_id, asked_at, prompt, persona, persona_line_ids, split and round; sorted by ``turn_id``.
    """
    kept = pairs.filter("is_kept", pl.col("source") == source.value).sort("pair_id").unique("turn_id", keep="first")
    if persona == "none":
        kept = kept.with_columns(persona=pl.lit(""), persona_line_ids=pl.lit([], dtype=pl.List(pl.String())))
    order = pl.Series([digest_of("round", turn_id, seed) for turn_id in kept["turn_id"]], dtype=pl.String())
    place = order.rank("ordinal").alias("place")
    dealt = kept.select(*_OF_REQUEST, place).with_columns(pl.col("place").rank("ordinal").over("split"))
    return dealt.with_columns(round=((pl.col("place") - 1) % rounds + 1).cast(pl.Int32())).drop("place").sort("turn_id")


def rounds(plan: Plan, asked: pl.DataFrame, policy: ModelRef, ask: Ask, score: Score, train: Train) -> Iterator[Round]:
    """Run the rounds; the policy of the last one is not trained here.

    Args:
        plan: What they are to give.
        asked: From `requests`.
        policy: The starting policy.
        ask: Answers of a policy.
        score: Rewards.
        train: Makes the policy of the next round.

    Raises:
        RoundError: A round has no pair to train on; the message says why.
    """
    left = dict(plan.pairs)
    for number in range(1, plan.rounds + 1):
        shares = {split: -(-count // (plan.rounds + 1 - number)) for split, count in left.items()}
        done = _round(plan, number, shares, asked.filter(round=number), policy, ask, score)
        kept = done.pairs.filter("is_kept")
        if kept.filter(split="train").is_empty():
            reasons = done.pairs.filter(split="train")["drop_reasons"].explode(empty_as_null=True).drop_nulls().value_counts(sort=True)
            told = ", ".join(f"{reason} {n}" for reason, n in reasons.iter_rows()) or "no request"
            raise RoundError(f"recipe {plan.recipe}, round {number}: no pair of candidates to train on ({told})")
        yield done
        left = {split: count - len(kept.filter(split=split)) for split, count in left.items()}
        if number < plan.rounds:
            policy = train(done)


def as_preference_pairs(pairs: pl.DataFrame, source: Source) -> pl.DataFrame:
    """``ONLINE_PAIRS`` of a recipe as ``PREFERENCE_PAIRS`` of its source: for whoever draws, shows or exports pairs."""
    known = pairs.with_columns(source=pl.lit(source.value), strategy=pl.lit("best_of_n"), is_off_policy=pl.lit(value=False))
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in PREFERENCE_PAIRS.schema.items() if name not in known.columns]
    return PREFERENCE_PAIRS.conform(known.with_columns(absent))


def policy_name(recipe: str, number: int) -> str:
    """Name of the policy that a round's pairs trained, among the artefacts ``online_policies``."""
    return f"{recipe}-round-{number}"


def _round(plan: Plan, number: int, shares: Mapping[str, int], asked: pl.DataFrame, policy: ModelRef, ask: Ask, score: Score) -> Round:
    answers = ask(policy, ranking.candidate_requests(asked, plan.candidates.count))
    undated = asked.with_columns(month=pl.lit(None, dtype=pl.String()))
    named = pl.format("{}/{}/{}", pl.lit(plan.recipe), pl.lit(number), "candidate_id")
    sampled = ranking.candidates(undated, answers, plan.candidates.count, policy.identity).with_columns(candidate_id=named)
    condition = CONDITIONS[plan.source]
    shown = sampled.drop_nulls("reply").with_columns(condition=pl.lit(condition), persona_user_id="user_id", seen="persona")
    reward_model, scored = score(ranking.reward_requests(shown, plan.placement))
    rewards = ranking.candidate_rewards(shown, scored, reward_model)
    told = {"recipe": pl.lit(plan.recipe), "round": pl.lit(number, dtype=pl.Int32())}
    split = asked.select("turn_id", "split")
    each = plan.candidates.model_copy(update={"pairs_per_request": _pairs_per_request(shares, split, plan.candidates.count)})
    pairs = ranked_pairs(sampled, rewards, each, [condition]).join(split, on="turn_id").with_columns(**told)
    ids = [digest_of("online_pair", plan.recipe, number, pair_id) for pair_id in pairs["pair_id"]]
    decided = _decided(pairs.with_columns(pair_id=pl.Series(ids, dtype=pl.String())), shares, plan)
    reward = rewards.select("candidate_id", "reward", "reward_model", reward_error="error", reward_call_id="call_id")
    rows = sampled.join(reward, on="candidate_id", how="left").join(split, on="turn_id")
    rows = rows.with_columns(error=pl.coalesce("error", "reward_error"), **told)
    return Round(number, policy, ONLINE_CANDIDATES.conform(rows), decided)


def _pairs_per_request(shares: Mapping[str, int], split: pl.DataFrame, candidates: int) -> int:
    """As many as the shares need, and one more for those that will be dropped; each takes two candidates."""
    counts = dict(split.group_by("split").len().iter_rows())
    needed = max((-(-share // counts[name]) for name, share in shares.items() if name in counts), default=0)
    return min(needed + 1, candidates // 2)


def _decided(pairs: pl.DataFrame, shares: Mapping[str, int], plan: Plan) -> pl.DataFrame:
    """``ONLINE_PAIRS``: of those that nothing is against, each split's share is kept, best against worst before second best and so on."""
    sound = pairs.filter("is_kept").with_columns(source=pl.lit(plan.source.value))
    repeated = duplicates(sound, plan.near_duplicate_jaccard).select("pair_id", "reason")
    distinct = sound.join(repeated, on="pair_id", how="anti")
    draw = pl.Series([digest_of(pair_id, plan.seed) for pair_id in distinct["pair_id"]], dtype=pl.String())
    ordered = distinct.select("pair_id", "split", "rank", draw=draw).sort("rank", "draw")
    beyond = pl.concat([ordered.filter(split=name).slice(share) for name, share in shares.items()])
    against = pl.concat([repeated, beyond.select("pair_id", reason=pl.lit(BEYOND_THE_SHARE))])
    told = pairs.join(against, on="pair_id", how="left")
    reasons = pl.concat_list("drop_reasons", "reason").list.drop_nulls()
    return ONLINE_PAIRS.conform(told.with_columns(drop_reasons=reasons, is_kept=reasons.list.len() == 0))
