"""Settings of the two models that are there before any recipe: the town's policy and the reward model.

What belongs here: how they are trained and tried. What does not: which models they are, which the section ``models:`` says.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.training.policy import TownPolicy
from rlhi_dagster.training.settings import PairSettings, TrainingSettings


class PolicySettings(BaseModel, frozen=True, extra="forbid"):
    """How the town's model is trained from nothing, with `models.policy: town`."""

    town: TownPolicy = Field(description="Its shape.")
    corpus: str = Field(description="Parquet of dialogues to train it on.")
    training: TrainingSettings = Field(description="How it is trained.")


class HumanPreferences(BaseModel, frozen=True, extra="forbid"):
    """Pairs that people ranked, in hh-rlhf's layout: JSON lines of `chosen` and `rejected` transcripts."""

    name: str = Field(description="Name of the set in `reward_model_scores.pairs`.")
    location: str = Field(description="Path, glob or `hf://` location of `.jsonl` or `.jsonl.gz` files.")


class RewardSettings(BaseModel, frozen=True, extra="forbid"):
    """The reward model: how one is trained on the rewrite pairs, where it sees the persona, and what it is tried on."""

    training: PairSettings | None = Field(default=None, description="How it is trained, with `models.reward: trained`.")
    max_pairs: int | None = Field(default=None, ge=1, description="Most training pairs; null for all.")
    persona_placement: PersonaPlacement = Field(
        default=PersonaPlacement.SYSTEM,
        description="Where the model sees the persona: `system`, or `first_user` for a chat template without a system role.",
    )
    human_preferences: tuple[HumanPreferences, ...] = Field(
        default=(), description="Sets of human preferences on which the reward model's accuracy is reported beside that on held-out pairs."
    )

    def deviations(self, model: str | None) -> list[str]:
        """Where this departs from the paper; ``model`` is the reward model, ``None`` for one trained here."""
        said = ["The reward model sees the persona; for the paper, sources disagree on whether it does."]
        if model is None:
            return ["The reward model is trained here, on rewrites against their originals; the paper's is Athene-RM-8B.", *said]
        return said if model.endswith("Athene-RM-8B") else [f"The reward model is `{model}`; the paper's is Athene-RM-8B.", *said]


def policy_deviations(town: PolicySettings | None, model: str | None) -> list[str]:
    """Where the policy departs from the paper's; ``model`` is its name, ``None`` for the town's."""
    if model is None and town is not None:
        millions = town.town.parameters / 1e6
        return [f"The policy is a model of {millions:.1f} million parameters that is trained here; the paper's is Llama-3.1-8B-Instruct."]
    of_paper = str(model).endswith("Llama-3.1-8B-Instruct")
    return [] if of_paper else [f"The policy is `{model}`; the paper's is Llama-3.1-8B-Instruct."]
