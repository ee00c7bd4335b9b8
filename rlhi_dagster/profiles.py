"""Profiles: every setting of a run in one YAML file, chosen by ``RLHI_PROFILE`` and validated before anything starts.

What belongs here: the shape of a profile, the environment variables that choose and bend one, and where its outputs lie. What does
not: the values (``profiles/*.yaml``), each with its source beside it.

Environment: ``RLHI_PROFILE`` (a name or a path to a YAML file; default ``sample``), ``RLHI_SOURCE`` (other conversations than the
profile's: path, glob or ``hf://``), ``RLHI_DATA`` (folder of all outputs; default ``data/`` of this checkout), ``RLHI_SALT`` (secret
that makes user fingerprints; required by ``laptop`` and ``paper``).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import dagster as dg
import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts
from rlhi_dagster.engines.forecast import Limits
from rlhi_dagster.engines.loading import EngineSettings
from rlhi_dagster.feedback.corpora import CorpusSettings
from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.personas.languages import CODES
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.training.policy import TownPolicy
from rlhi_dagster.training.recipes import Recipe
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings

ROOT = Path(__file__).parents[1]
"""The checkout."""


Role = Literal["policy", "reward", "labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", "judge"]
"""What a model is asked for; each role may have an engine of its own."""
ROLES: tuple[Role, ...] = get_args(Role)


class SamplingSettings(BaseModel, frozen=True, extra="forbid"):
    """How replies are drawn."""

    temperature: float = Field(ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(gt=0, le=1, description="Nucleus mass.")
    max_new_tokens: int = Field(ge=1, description="Longest reply in tokens.")

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        if (self.temperature, self.top_p) == (0.6, 0.9):
            return []
        return [f"Replies are sampled at temperature {self.temperature:g} and top-p {self.top_p:g} instead of 0.6 and 0.9."]


def _named(model: str | None) -> str:
    """A model in a sentence: of a local folder the name only."""
    return f"`{Path(model).name if model and Path(model).is_dir() else model}`"


def _require_revision(hub_model: str | None, hub_revision: str | None) -> None:
    if hub_model and not hub_revision and not Path(hub_model).is_dir():
        raise ValueError(f"hub_model {hub_model} needs hub_revision: an unpinned model can change under a run")


class HubModel(BaseModel, frozen=True, extra="forbid"):
    """A model of the Hub at a commit, or a local folder."""

    hub_model: str = Field(description="Hub id or local folder.")
    hub_revision: str | None = Field(default=None, description="Hub commit; required unless it is a local folder.")

    @model_validator(mode="after")
    def _is_pinned(self) -> HubModel:
        _require_revision(self.hub_model, self.hub_revision)
        return self


class PolicySettings(BaseModel, frozen=True, extra="forbid"):
    """The starting model: one of the Hub, or the town's, trained here."""

    hub_model: str | None = Field(default=None, description="Hub id or local folder; null to train the town's model.")
    hub_revision: str | None = Field(default=None, description="Hub commit; required with `hub_model` unless it is a local folder.")
    town: TownPolicy | None = Field(default=None, description="Shape of the town's model.")
    corpus: str | None = Field(default=None, description="Parquet of dialogues to train the town's model on.")
    training: TrainingSettings | None = Field(default=None, description="How the town's model is trained.")

    @model_validator(mode="after")
    def _one_of_two(self) -> PolicySettings:
        if (self.hub_model is None) == (self.town is None):
            raise ValueError("give either hub_model or town")
        if self.town and not (self.corpus and self.training):
            raise ValueError("town needs corpus and training")
        _require_revision(self.hub_model, self.hub_revision)
        return self

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        if self.town:
            millions = self.town.parameters / 1e6
            return [
                f"The policy is a model of {millions:.1f} million parameters that is trained here; the paper's is Llama-3.1-8B-Instruct."
            ]
        of_paper = str(self.hub_model).endswith("Llama-3.1-8B-Instruct")
        return [] if of_paper else [f"The policy is {_named(self.hub_model)}; the paper's is Llama-3.1-8B-Instruct."]


class HumanPreferences(BaseModel, frozen=True, extra="forbid"):
    """Pairs that people ranked, in hh-rlhf's layout: JSON lines of `chosen` and `rejected` transcripts."""

    name: str = Field(description="Name of the set in `reward_model_scores.pairs`.")
    location: str = Field(description="Path, glob or `hf://` location of `.jsonl` or `.jsonl.gz` files.")


class RewardSettings(BaseModel, frozen=True, extra="forbid"):
    """The reward model: one of the Hub, or a persona-conditioned one trained on the rewrite pairs."""

    hub_model: str | None = Field(default=None, description="Hub id or local folder of a sequence classifier; null to train one here.")
    hub_revision: str | None = Field(default=None, description="Hub commit; required with `hub_model` unless it is a local folder.")
    training: TrainingSettings | None = Field(default=None, description="How the reward model is trained.")
    max_pairs: int | None = Field(default=None, ge=1, description="Most training pairs; null for all.")
    persona_placement: PersonaPlacement = Field(
        default=PersonaPlacement.SYSTEM,
        description="Where the model sees the persona: `system`, or `first_user` for a chat template without a system role.",
    )
    human_preferences: tuple[HumanPreferences, ...] = Field(
        default=(), description="Sets of human preferences on which the reward model's accuracy is reported beside that on held-out pairs."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> RewardSettings:
        if (self.hub_model is None) == (self.training is None):
            raise ValueError("give either hub_model or training")
        _require_revision(self.hub_model, self.hub_revision)
        return self

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        said = ["The reward model sees the persona; for the paper, sources disagree on whether it does."]
        if self.hub_model is None:
            return ["The reward model is trained here, on rewrites against their originals; the paper's is Athene-RM-8B.", *said]
        of_paper = self.hub_model.endswith("Athene-RM-8B")
        return said if of_paper else [f"The reward model is {_named(self.hub_model)}; the paper's is Athene-RM-8B.", *said]


class LabelledSettings(BaseModel, frozen=True, extra="forbid"):
    """Labelled follow-ups."""

    labels: str = Field(description="CSV of conversation_hash, message_index, label and, where labelled twice, second_label.")
    conversations: str = Field(description="Logs with the labelled conversations: file, folder or glob of a kind that the README lists.")


class LabellerSettings(BaseModel, frozen=True, extra="forbid"):
    """Who labels follow-ups: the classifier alone, or a cascade of it and a chat model."""

    hub_model: str | None = Field(default=None, description="Hub id or local folder of a chat model; null for the classifier alone.")
    hub_revision: str | None = Field(default=None, description="Hub commit; required with `hub_model` unless it is a local folder.")
    sure: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Least probability at which the classifier's label stands where there is a model; 1 leaves all to the model.",
    )
    training: LabelledSettings | None = Field(
        default=None, description="Labelled follow-ups to train the classifier from; null for the one that comes with the project."
    )

    @model_validator(mode="after")
    def _is_pinned(self) -> LabellerSettings:
        _require_revision(self.hub_model, self.hub_revision)
        return self

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        if self.hub_model is None:
            who = "a trained classifier"
        elif self.sure == 1:
            who = _named(self.hub_model)
        else:
            who = f"a trained classifier and, where it is less than {100 * self.sure:g} % sure, from {_named(self.hub_model)}"
        return [f"Feedback labels come from {who}; the paper used GPT-4o."]


class PersonaSettings(BaseModel, frozen=True, extra="forbid"):
    """Who writes personas, of what, and how much."""

    writer: HubModel | None = Field(default=None, description="Chat model that writes the lines; null for the extractive writer.")
    extracts: tuple[Literal["wishes", "languages", "domains"], ...] = Field(
        default=("wishes", "languages", "domains"),
        description="What the extractive writer aggregates: wishes about answers, languages, subjects asked about.",
    )
    max_lines: int = Field(default=8, ge=1, description="Most lines of a user at a moment.")
    max_line_characters: int = Field(default=160, ge=20, description="Longest line.")
    language: str = Field(default="English", description="Language that the model writes lines in: one of `personas.languages.CODES`.")
    conversations_per_update: int = Field(default=3, ge=1, description="Conversations that the model reads at a time to revise its lines.")
    corrections: str | None = Field(
        default=None,
        description="YAML of users' own edits and deletions, which win over the writer; relative to the folder of all outputs.",
    )

    @field_validator("language")
    @classmethod
    def _can_be_told(cls, language: str) -> str:
        if language not in CODES:
            raise ValueError(f"{language} cannot be told from other languages; give one of {', '.join(CODES)}")
        return language

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        if self.writer is None:
            return [
                "Persona lines are extracted by rule from what users asked for, each with the messages that support it; the paper has a "
                "language model write a summary."
            ]
        return [
            f"Personas are lines that {_named(self.writer.hub_model)} keeps up to date, each citing words of the user that are checked; "
            "the paper has a language model, unnamed, write a summary."
        ]


class PairJudgeSettings(BaseModel, frozen=True, extra="forbid"):
    """Who tells whether criticism fits a reply and whether a rewrite meets it."""

    kind: Literal["rule", "town", "chat"] = Field(
        default="rule",
        description="`rule`: length, format and language are read off the replies. `town`: the sample's grammar. `chat`: a chat model.",
    )
    model: HubModel | None = Field(default=None, description="The chat model of kind `chat`.")

    @model_validator(mode="after")
    def _is_named(self) -> PairJudgeSettings:
        if (self.kind == "chat") != (self.model is not None):
            raise ValueError("pair_judge: kind chat needs a model, the other kinds take none")
        return self

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        rules = {"rule": "a rule tells", "town": "the town's grammar tells"}
        who = f"{_named(self.model.hub_model)} tells" if self.model else rules[self.kind]
        return [
            f"A follow-up kept from the logs is tested against the regenerated reply, and the rewrite against the follow-up: {who} whether "
            "the criticism fits and whether it is met. The paper does not say."
        ]


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
    rewriter: HubModel | None = Field(default=None, description="Chat model that rewrites; null for the policy itself.")
    form: Literal["instruction", "dialogue"] = Field(
        default="instruction",
        description="`instruction`: the rewriter gets `prompts/rewrite.md`. `dialogue`: it continues the dialogue, for models that know "
        "dialogues only.",
    )
    filters: PairFilterSettings = Field(default=PairFilterSettings(), description="Which rewrites become pairs.")

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        fates = {
            "drop": "the pair is dropped",
            "logged": "the logged reply is the rejected side, and the pair is flagged",
            "keep": "the pair stays",
        }
        said = [f"Where a follow-up does not fit the regenerated reply, {fates[self.inapplicable]}; the paper does not say."]
        if self.form == "dialogue":
            who = "the policy" if self.rewriter is None else _named(self.rewriter.hub_model)
            said.append(f"Rewrites are how {who} goes on after the feedback; nothing instructs it to revise its reply.")
        return [*said, *self.filters.deviations()]


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


_SAMPLE_SOLUTIONS = "data/sample/prm800k.jsonl"


class ReasoningSettings(BaseModel, frozen=True, extra="forbid"):
    """Erroneous solutions and the simulated user who points at the error."""

    prm800k: str = Field(description="PRM800K (JSON lines) in its original layout or as decoded steps: path or glob.")
    errors: int = Field(ge=0, description="Most erroneous solutions to use. The paper uses 10,000.")
    simulated_user: HubModel | None = Field(
        default=None, description="Chat model that points at the first wrong step; null for a template."
    )

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        said = [] if self.errors == 10_000 else [f"At most {self.errors:,} erroneous solutions instead of 10,000."]
        if self.prm800k == _SAMPLE_SOLUTIONS:
            said.append("The erroneous solutions are of simulated sums, in the layout of PRM800K, which the paper takes them from.")
        if self.simulated_user is None:
            said.append("A template points at the wrong step; in the paper a language model plays the user.")
        return said


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


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What checkpoints are tried on."""

    requests_per_user: int = Field(ge=1, description="Latest opening requests of each held-out user.")
    arithmetic_problems: int = Field(ge=0, description="Held-out sums.")
    judge: Literal["town", "chat"] = Field(
        description="`town`: the hidden preference decides (sample only). `chat`: a chat model with `prompts/judge.md`."
    )
    judge_model: str | None = Field(default=None, description="Hub id or local folder of the chat judge.")
    judge_revision: str | None = Field(default=None, description="Hub commit of the chat judge.")

    @model_validator(mode="after")
    def _judge_is_named(self) -> EvaluationSettings:
        if self.judge == "chat" and not self.judge_model:
            raise ValueError("judge chat needs judge_model (and judge_revision)")
        if self.judge_model and not self.judge_revision and not Path(self.judge_model).is_dir():
            raise ValueError(f"judge_model {self.judge_model} needs judge_revision")
        return self

    def deviations(self) -> list[str]:
        """Where this departs from the paper."""
        town = "The judge is the simulated users' own preferences; the paper's judges are closed models."
        chat = f"The judge is {_named(self.judge_model)}, asked in both orders; the paper's judges are closed models."
        sums = f"; {self.arithmetic_problems} sums stand in for them" if self.arithmetic_problems else ""
        absent = "AlpacaEval 2.0, Arena-Hard, OlympiadBench, Minerva, GPQA and MMLU-Pro"
        return [town if self.judge == "town" else chat, f"The paper's other benchmarks are not run ({absent}){sums}."]


class Profile(BaseModel, frozen=True, extra="forbid"):
    """Every setting of a run."""

    name: str = Field(description="Name of the profile.")
    source: SourceSettings = Field(description="Where conversations come from.")
    first_month: str = Field(pattern=r"^\d{4}-\d{2}$", description="First month partition.")
    held_out_fraction: float = Field(gt=0, lt=1, description="Share of users kept for evaluation.")
    salt: str | None = Field(default=None, description="Public salt of simulated users; null to require RLHI_SALT.")
    truth: str | None = Field(default=None, description="Folder with the truth of a simulated source; null for real logs.")
    reasoning: ReasoningSettings = Field(description="Erroneous solutions and who points at the error.")
    engine: EngineSettings = Field(description="How models are run.")
    engines: dict[Role, EngineSettings] = Field(
        default={},
        description="Engines of single roles: `policy`, `reward`, `labeller`, `persona_writer`, `rewriter` (unless it is the policy), "
        "`pair_judge`, `simulated_user`, `judge`.",
    )
    limits: Limits = Field(default=Limits(), description="What the model calls of one asset may cost in one run.")
    sampling: SamplingSettings = Field(description="How replies are drawn.")
    policy: PolicySettings = Field(description="The starting model.")
    reward: RewardSettings = Field(description="The reward model.")
    labeller: LabellerSettings = Field(default=LabellerSettings(), description="Who labels follow-ups.")
    personas: PersonaSettings = Field(default=PersonaSettings(), description="Who writes personas, of what, and how much.")
    pair_judge: PairJudgeSettings = Field(
        default=PairJudgeSettings(), description="Who tells whether criticism fits a reply and whether a rewrite meets it."
    )
    rewrites: RewriteSettings = Field(description="How criticised replies are rewritten, and which rewrites become pairs.")
    candidates: CandidateSettings = Field(description="Sampling and ranking of candidates.")
    pairs: PairSettings = Field(default=PairSettings(), description="Duplicates and decontamination of the union of all pairs.")
    max_pairs: int | None = Field(default=None, ge=1, description="Most training pairs per recipe; all recipes use equally many.")
    validation_fraction: float = Field(gt=0, lt=1, description="Share of training users whose pairs validate.")
    sft: TrainingSettings = Field(description="Training of `sft` recipes.")
    dpo: DPOSettings = Field(description="Training of `dpo` recipes.")
    dpo_on_rewards: DPOSettings | None = Field(
        default=None,
        description="Training of `dpo` recipes on reward pairs, whose sides differ more than those of rewrites; null for `dpo`.",
    )
    evaluation: EvaluationSettings = Field(description="What checkpoints are tried on.")
    diversity_corpora: tuple[CorpusSettings, ...] = Field(
        default=(), description="Corpora whose prompts are compared with the source's in `contextual_diversity`."
    )
    seed: int = Field(description="Seed of everything that is drawn.")

    @model_validator(mode="after")
    def _corpora_have_names_of_their_own(self) -> Profile:
        names = [self.source.name, *(corpus.name for corpus in self.diversity_corpora)]
        if len(set(names)) < len(names):
            raise ValueError(f"diversity_corpora: source and corpora need different names, not {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _town_judges_the_town(self) -> Profile:
        if self.pair_judge.kind == "town" and self.truth is None:
            raise ValueError("pair_judge: kind town reads replies of the simulated town only; set it to rule or chat for real logs")
        return self

    @model_validator(mode="after")
    def _rewards_have_an_engine(self) -> Profile:
        if self.engine_of("reward").kind == "openai":
            raise ValueError("engines.reward: a server of chat completions gives no rewards; set it to transformers or vllm")
        return self

    def deviations(self) -> list[str]:
        """Where a run with this profile departs from the paper, a sentence each; `code` is in backticks."""
        parts = (self.source, self.labeller, self.personas, self.sampling, self.policy, self.pair_judge, self.rewrites, self.candidates)
        said = [sentence for part in (*parts, self.reward, self.reasoning) for sentence in part.deviations()]
        said += self.dpo.deviations("DPO")
        said += self.dpo_on_rewards.deviations("DPO on pairs by reward") if self.dpo_on_rewards else []
        return [*said, *self.evaluation.deviations()]

    def engine_of(self, role: Role) -> EngineSettings:
        """How the model of a role is run."""
        return self.engines.get(role, self.engine)

    def training_of(self, recipe: Recipe) -> TrainingSettings:
        """How a recipe's checkpoint is trained: the profile's settings for its method and sources, with the recipe's own changes."""
        from_rewards = any(source.startswith("rewards") for source in recipe.sources)
        of_dpo = self.dpo_on_rewards or self.dpo if from_rewards else self.dpo
        base = self.sft if recipe.method == "sft" else of_dpo
        return type(base).model_validate(base.model_dump() | recipe.settings)


class ProfileError(ValueError):
    """A profile that cannot be used; the message says which setting of which file, and what to do."""


def available() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in (files("rlhi_dagster") / "profiles").iterdir() if entry.name.endswith(".yaml")
    )


def load(name: str, source: str | None = None) -> Profile:
    """Read and validate a profile.

    Args:
        name: Name of a profile, or path to a YAML file.
        source: Location of conversations that replace the profile's own.

    Raises:
        ProfileError: There is no such profile, or a setting is missing, unknown or out of range.
    """
    file = Path(name) if _is_file(name) else Path(str(files("rlhi_dagster") / "profiles" / f"{name}.yaml"))
    if not file.is_file():
        raise ProfileError(f"RLHI_PROFILE={name}: no such profile; there are {', '.join(available())}, or give the path of a YAML file")
    try:
        settings = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ProfileError(f"{file} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ProfileError(f"{file} must be a mapping of settings")
    if source:
        settings["source"] = _replaced(settings.get("source") or {}, source)
        # The town's judges know the town's replies and users only.
        settings["truth"] = None
        if (settings.get("pair_judge") or {}).get("kind") == "town":
            settings["pair_judge"] = {"kind": "rule"}
        settings["first_month"] = min(str(settings.get("first_month")), "2023-04")
    try:
        profile = Profile(**settings)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'profile'}: {item['msg']}" for item in error.errors())
        raise ProfileError(f"{file}: {problems}") from error
    return profile


def _replaced(source: dict[str, object], location: str) -> dict[str, object]:
    try:
        kind = detect_kind(_absolute(location))
    except ValueError as error:
        raise ProfileError(f"RLHI_SOURCE={location}: {error}") from error
    # Column names and languages of the profile's own source say nothing about another one.
    kept = {name: value for name, value in source.items() if name not in ("fields", "languages")}
    return {**kept, "name": _slug(location), "kind": str(kind), "location": location, "assumed_model": "unknown"}


@functools.cache
def current() -> Profile:
    """The profile that the environment chooses."""
    return load(os.environ.get("RLHI_PROFILE", "sample"), os.environ.get("RLHI_SOURCE") or None)


def data_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder of all outputs: ``RLHI_DATA`` or ``data/``; other sources and profiles get folders of their own below it, so nothing mixes.

    A profile or source given by its path is told from others of the same file name by a digest of the absolute path.
    """
    root = Path(environment.get("RLHI_DATA") or ROOT / "data").absolute()
    profile, source = environment.get("RLHI_PROFILE", "sample"), environment.get("RLHI_SOURCE")
    name = _slug(str(Path(profile).resolve())) if _is_file(profile) else profile
    if source:
        return root / "sources" / f"{name}-{_slug(source)}"
    return root if name == "sample" else root / "profiles" / name


def source_months(profile: Profile) -> tuple[str, str]:
    """The first and the last month, from the profile's ``first_month`` on, that the source has rows of.

    Raises:
        ProfileError: There is no such month.
    """
    counted = [month for month in month_counts(source_settings(profile)) if month >= profile.first_month]
    if not counted:
        raise ProfileError(f"source {profile.source.name} has no rows from {profile.first_month} on")
    return min(counted), max(counted)


def source_settings(profile: Profile) -> SourceSettings:
    """The source with its location made absolute: relative paths count from the checkout, for a profile, or the working directory."""
    return profile.source.model_copy(update={"location": _absolute(profile.source.location)})


def diversity_corpora(profile: Profile) -> list[CorpusSettings]:
    """The corpora to compare with, their locations made absolute as the source's is."""
    return [corpus.model_copy(update={"location": _absolute(corpus.location)}) for corpus in profile.diversity_corpora]


def human_preferences(profile: Profile) -> list[HumanPreferences]:
    """The sets of human preferences, their locations made absolute as the source's is."""
    return [each.model_copy(update={"location": _absolute(each.location)}) for each in profile.reward.human_preferences]


def labelled_follow_ups(profile: Profile) -> LabelledSettings | None:
    """What to train the classifier from, the conversations' location made absolute as the source's is."""
    given = profile.labeller.training
    return given and given.model_copy(update={"conversations": _absolute(given.conversations)})


def project_path(path: str) -> Path:
    """A path of a profile: relative ones count from the checkout."""
    return Path(path) if Path(path).is_absolute() else ROOT / path


def salt(profile: Profile) -> str:
    """The secret that makes user fingerprints: ``RLHI_SALT``, or the public one of simulated users.

    Where the sample's profile reads real logs (``RLHI_SOURCE``) and ``RLHI_SALT`` is not set, a random secret is drawn once and kept
    beside the outputs in the file ``salt``, readable by its owner only; without that file fingerprints cannot be made again.

    Raises:
        ProfileError: The profile carries none and ``RLHI_SALT`` is not set.
    """
    given = dg.EnvVar("RLHI_SALT").get_value()
    if given:
        return given
    if not profile.salt:
        raise ProfileError(
            f"profile {profile.name} needs RLHI_SALT: any secret string, kept for as long as fingerprints must stay the same"
        )
    return profile.salt if profile.truth else _kept_secret(data_root() / "salt")


def _kept_secret(file: Path) -> str:
    """The secret in ``file``, drawn if there is none; written aside and linked, so that nobody ever reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(partial, file)
        partial.unlink()
    secret = file.read_text().strip()
    if not secret:
        raise ProfileError(f"{file} is empty: set RLHI_SALT, or remove the file to draw a new secret (fingerprints will change)")
    return secret


def _is_file(profile: str) -> bool:
    """Whether a profile is given by the path of a YAML file rather than by its name."""
    return profile.endswith((".yaml", ".yml"))


def _absolute(location: str) -> str:
    if "://" in location or Path(location).is_absolute():
        return location
    here = Path.cwd() / location
    return str(here if here.exists() or any(Path.cwd().glob(location)) else ROOT / location)


def _slug(location: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(location).stem).strip("-").lower() or "source"
    return f"{stem[:40]}-{hashlib.sha256(_absolute(location).encode()).hexdigest()[:6]}"
