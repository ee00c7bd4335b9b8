"""Settings of preference pairs: rewrites and their filters, what users say outright, candidates, and the union of all sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from rlhi_dagster.conversations.sources.records import Giver
from rlhi_dagster.preferences import Strategy


class SideFilterSettings(BaseModel, frozen=True, extra="forbid"):
    """Which sides make a pair. A limit that is null is not looked at; everything that is measured stays in the table."""

    min_length_ratio: float | None = Field(
        default=0.1, gt=0, description="Least length of the preferred side relative to the other's, in characters."
    )
    max_length_ratio: float | None = Field(default=10.0, gt=0, description="Largest length of the preferred side relative to the other's.")
    max_similarity: float | None = Field(
        default=0.98, gt=0, le=1, description="Largest similarity of the sides: 1 - Levenshtein distance / longer length."
    )
    refusals: bool = Field(default=True, description="Drop pairs of which a side is a refusal.")
    languages: bool = Field(default=True, description="Drop pairs whose sides differ in language though nobody asked for that.")
    toxicity: bool = Field(default=True, description="Drop pairs whose preferred side has words of abuse that nothing before it has.")


class PairFilterSettings(SideFilterSettings, frozen=True, extra="forbid"):
    """Which rewrites become pairs."""

    min_meets_feedback: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Least probability that the rewrite meets the feedback; rewrites of which nobody can tell stay.",
    )
    max_new_words: int | None = Field(
        default=1,
        ge=0,
        description="Most words that the rewrite takes from the feedback though neither conversation nor original has them.",
    )
    min_reward_margin: float | None = Field(default=None, description="Least reward of the rewrite minus reward of the original.")
    min_reward: float | None = Field(default=None, description="Least reward of the rewrite.")

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        limits = [f"at least {self.min_reward:g}"] if self.min_reward is not None else []
        if self.min_reward_margin is not None:
            over = f"at least {self.min_reward_margin:g} over" if self.min_reward_margin else "not below"
            limits.append(f"{over} the original's")
        if not limits:
            return ["No reward model filters the rewrites, as one does in the paper."]
        return [f"A rewrite is kept if its reward is {' and '.join(limits)}; a reward model filters the paper's, how is unknown."]


class RewriteSettings(BaseModel, frozen=True, extra="forbid"):
    """How criticised replies are rewritten, and which rewrites become pairs."""

    min_feedback_probability: float = Field(
        ge=0, le=1, description="Least probability of `reattempt_with_feedback` for a follow-up to count."
    )
    inapplicable: Literal["drop", "logged", "keep"] = Field(
        description="Follow-ups whose criticism does not fit the regenerated reply: `drop` the pair, take the `logged` reply as the "
        "rejected side (flagged off-policy), or `keep` the pair as it is."
    )
    strategies: tuple[Strategy, ...] = Field(
        default=(Strategy.FEEDBACK, Strategy.SCRATCH, Strategy.LOGGED), description="Which rewrites are made; recipes name them as sources."
    )
    form: Literal["instruction", "dialogue"] = Field(
        default="instruction",
        description="`instruction`: the rewriter gets `prompts/rewrite.md`. `dialogue`: it continues the dialogue, for models that know "
        "dialogues only.",
    )
    filters: PairFilterSettings = Field(default=PairFilterSettings(), description="Which rewrites become pairs.")

    def deviations(self, model: str | None) -> list[str]:
        """Where this departs from the paper; ``model`` rewrites, ``None`` if the policy does."""
        fates = {
            "drop": "the pair is dropped",
            "logged": "the logged reply is the rejected side, and the pair is flagged",
            "keep": "the pair stays",
        }
        said = [f"Where a follow-up does not fit the regenerated reply, {fates[self.inapplicable]}; the paper does not say."]
        if self.form == "dialogue":
            who = "the policy" if model is None else f"`{model}`"
            said.append(f"Rewrites are how {who} goes on after the feedback; nothing instructs it to revise its reply.")
        return [*said, *self.filters.deviations()]


class ExplicitPairSettings(BaseModel, frozen=True, extra="forbid"):
    """Which edits, regenerations and choices become pairs."""

    givers: tuple[Giver, ...] = Field(
        default=(Giver.END_USER,), min_length=1, description="Whose feedback counts: `end_user`, `staff`, `model`."
    )
    weak: bool = Field(default=True, description="Keep pairs with weak evidence, such as a regeneration and nothing else.")
    filters: SideFilterSettings = Field(
        default=SideFilterSettings(languages=False),
        description="Which sides make a pair. Languages may differ: the user has seen both sides, and may want just that.",
    )


class CandidateSettings(BaseModel, frozen=True, extra="forbid"):
    """Sampling and ranking of candidates."""

    count: int = Field(ge=2, description="N, replies per request. The paper samples 64.")
    max_requests: int | None = Field(
        default=None, ge=1, description="At most this many opening requests a month, drawn by digest; null for all."
    )
    min_margin: float = Field(ge=0, description="Least reward difference between best and worst.")
    length_penalty: float = Field(
        default=0.0,
        ge=0,
        description="Reward taken off per 1,000 characters before ranking: reward models like length. The paper has none.",
    )
    ties: Literal["shorter", "first"] = Field(
        default="shorter", description="Of equal rewards: the `shorter` reply is the better one, or the `first` sampled."
    )
    pairs_per_request: int = Field(
        default=1, ge=1, description="1 is the paper's best against worst; 2 adds the second best against the second worst, and so on."
    )
    with_persona_only: bool = Field(
        description="Leave out requests of users of whom nothing is known yet; the paper uses every first request."
    )

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        requests = ["of users of whom something is known"] if self.with_persona_only else []
        requests += [f"at most {self.max_requests:,} a month"] if self.max_requests else []
        said = {
            f"{self.count} candidates a request instead of 64.": self.count != 64,
            f"Candidates are sampled for first requests {', '.join(requests)}, not for every one.": bool(requests),
            f"{self.pairs_per_request} pairs a request: best against worst, as in the paper, and the next best against the next worst.": (
                self.pairs_per_request > 1
            ),
            f"Sides of a pair differ in reward by at least {self.min_margin:g}; the paper names no bound.": self.min_margin > 0,
            f"A reply's reward is lowered by {self.length_penalty:g} per 1,000 characters; the paper's is not.": self.length_penalty > 0,
        }
        return [sentence for sentence, holds in said.items() if holds]


class DecontaminationSettings(BaseModel, frozen=True, extra="forbid"):
    """What counts as an evaluation item among the pairs."""

    benchmarks: tuple[str, ...] | None = Field(
        default=None, description="Benchmarks (`eval_prompts.benchmark`) that pairs must not repeat; null for all of them."
    )
    ngram_words: int = Field(default=13, ge=2, description="So many words in a row that both have are a hit; shorter prompts as a whole.")
    min_similarity: float | None = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Cosine similarity of MiniLM embeddings from which on prompts with the same numbers are a hit.",
    )


class PairSettings(BaseModel, frozen=True, extra="forbid"):
    """The union of all sources."""

    near_duplicate_jaccard: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Jaccard similarity of word 5-grams, of prompt and each side, from which on pairs of a source are duplicates.",
    )
    decontamination: DecontaminationSettings = Field(
        default=DecontaminationSettings(), description="What counts as an evaluation item among the pairs."
    )


def pair_judge_deviations(program: str | None, model: str | None) -> list[str]:
    """Where the judge of follow-ups and rewrites departs from the paper; it is a program of this project or a model."""
    rules = {"rule": "a rule tells", "town": "the town's grammar tells", "village": "the village's checkers tell"}
    who = f"`{model}` tells" if program is None else rules[program]
    return [
        f"A follow-up kept from the logs is tested against the regenerated reply, and the rewrite against the follow-up: {who} whether the "
        "criticism fits and whether it is met. The paper does not say."
    ]
