"""Training recipes: one YAML file each; the file's stem is the recipe's name and partition key.

What belongs here: the shape of a recipe and how a wrong one is told. What does not: which pairs it draws (``pair_sets.py``) and the values
of its settings, which are the profile's where the recipe says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from rlhi_dagster.preferences import Source
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings


class Trains(Protocol):
    """What of a profile says how recipes train."""

    @property
    def name(self) -> str:
        """Of the profile."""
        ...

    def training_of(self, recipe: Recipe) -> TrainingSettings:
        """The profile's settings for a recipe, with the recipe's own changes."""
        ...


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """One training arm."""

    description: str = Field(min_length=1, description="What the arm is, in a sentence.")
    method: Literal["none", "sft", "dpo"] = Field(description="`none` is the starting policy itself.")
    sources: tuple[Source, ...] = Field(
        default=(), description="Which preference pairs, as in `preference_pairs.source`; of several sources equally many."
    )
    pairs: Literal["equal", "all"] = Field(
        default="equal",
        description="`equal`: as many as every other recipe. `all`: every kept pair of the sources, however few; such an arm is not "
        "comparable with the others, and they are not cut down to it.",
    )
    rounds: int = Field(
        default=0,
        ge=0,
        description="So often candidates are sampled from the policy as it is then, ranked, and trained on (online); 0 trains on the pairs "
        "that are there.",
    )
    persona: Literal["own", "none"] = Field(default="own", description="Persona shown in training and evaluation.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings that differ from the profile's.")

    @model_validator(mode="after")
    def _pairs_or_none(self) -> Recipe:
        if (self.method == "none") == bool(self.sources):
            raise ValueError("method none takes no sources; the others need one")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources names one twice")
        return self

    @model_validator(mode="after")
    def _rounds_rank_candidates(self) -> Recipe:
        if self.rounds and (self.method, self.sources, self.persona, self.pairs) != ("dpo", (Source.REWARDS,), "own", "equal"):
            raise ValueError(
                "rounds needs method dpo, sources [rewards], persona own and pairs equal: candidates are ranked under the persona"
            )
        return self

    @model_validator(mode="after")
    def _settings_are_known(self) -> Recipe:
        try:
            (DPOSettings if self.method == "dpo" else TrainingSettings).model_validate(self.settings)
        except ValidationError as error:
            # What concerns several settings at once depends on the profile's: see `training_settings`.
            if wrong := [f"settings.{field}: {message}" for field, message in _problems(error) if field]:
                raise ValueError("; ".join(wrong)) from error
        return self


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file and the field."""


def names(folder: str | None = None) -> list[str]:
    """Names of all recipes, sorted; those in ``folder`` are laid over those of the project."""
    return sorted(_files(folder))


def load(name: str, folder: str | None = None) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: There is no such recipe, or a field is missing, unknown or out of range.
    """
    file = _files(folder).get(name)
    if file is None:
        raise RecipeError(f"no recipe {name}; there are {', '.join(names(folder))}")
    try:
        return Recipe.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        problems = "; ".join(f"{field}: {message}" if field else message for field, message in _problems(error))
        raise RecipeError(f"recipe {name}.yaml: {problems}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name}.yaml is no YAML: {' '.join(str(error).split())}") from error


def load_all(folder: str | None = None) -> dict[str, Recipe]:
    """Every recipe by name."""
    return {name: load(name, folder) for name in names(folder)}


def texts(folder: str | None = None) -> dict[str, str]:
    """Every recipe's file as it stands, by name; read without judging it."""
    return {name: file.read_text() for name, file in sorted(_files(folder).items())}


def training_settings(arms: Mapping[str, Recipe], profile: Trains) -> dict[str, TrainingSettings]:
    """How each recipe that trains does so with a profile.

    Raises:
        RecipeError: The settings of a recipe do not go with the profile's; the message names both.
    """
    found = {}
    for name, recipe in arms.items():
        if recipe.sources:
            try:
                found[name] = profile.training_of(recipe)
            except ValidationError as error:
                problems = "; ".join(message for _, message in _problems(error))
                raise RecipeError(f"recipe {name}.yaml: settings with those of profile {profile.name}: {problems}") from error
    return found


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    """What is wrong with which field; without a field it concerns several at once."""
    return [(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in error.errors()]


def _files(folder: str | None) -> dict[str, Any]:
    """Files of all recipes by name."""
    laid_over = [*_folder().iterdir(), *(Path(folder).iterdir() if folder else ())]
    return {entry.name.removesuffix(".yaml"): entry for entry in laid_over if entry.name.endswith(".yaml")}


def _folder() -> Any:
    return files("rlhi_dagster") / "training" / "recipes"
