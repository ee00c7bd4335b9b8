"""Settings of preference pairs: rewrites and their filters, candidates, and the union of all sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from rlhi_dagster.preferences import Strategy


class PairFilterSettings(BaseModel, frozen=True, extra="forbid"):
    """Which rewrites become pairs. A limit that is null is not looked at; everything that is measured stays in the table."""

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
    min_length_ratio: float | None = Field(
        default=0.1, gt=0, description="Least length of the rewrite relative to the original's, in characters."
    )
    max_length_ratio: float | None = Field(default=10.0, gt=0, description="Largest length of the rewrite relative to the original's.")
    max_similarity: float | None = Field(
        default=0.98, gt=0, le=1, description="Largest similarity of the sides: 1 - Levenshtein distance / longer length."
    )
    refusals: bool = Field(default=True, description="Drop pairs of which a side is a refusal.")
    languages: bool = Field(default=True, description="Drop pairs whose sides differ in language though nobody asked for that.")
    toxicity: bool = Field(default=True, description="Drop pairs whose rewrite has words of abuse that the request does not.")


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
