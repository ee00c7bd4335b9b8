"""Settings of the two models that are there before any recipe: the town's policy and the reward model.

What belongs here: how they are trained and tried. What does not: which models they are, which the section ``models:`` says.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.training.policy import TownPolicy
from rlhi_dagster.training.settings import TrainingSettings


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

    training: TrainingSettings | None = Field(default=None, description="How it is trained, with `models.reward: trained`.")
    max_pairs: int | None = Field(default=None, ge=1, description="Most training pairs; null for all.")
    persona_placement: PersonaPlacement = Field(
        default=PersonaPlacement.SYSTEM,
        description="Where the model sees the persona: `system`, or `first_user` for a chat template without a system role.",
    )
    human_preferences: tuple[HumanPreferences, ...] = Field(
        default=(), description="Sets of human preferences on which the reward model's accuracy is reported beside that on held-out pairs."
    )
