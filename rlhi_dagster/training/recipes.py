"""Training recipes: one YAML file each; the file's stem is the recipe's name and partition key."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from rlhi_dagster.preferences import Source
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """One training arm."""

    description: str = Field(min_length=1, description="What the arm is, in a sentence.")
    method: Literal["none", "sft", "dpo"] = Field(description="`none` is the starting policy itself.")
    source: Source | None = Field(default=None, description="Which preference pairs; as in `preference_pairs.source`.")
    persona: Literal["own", "none"] = Field(default="own", description="Persona shown in training and evaluation.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings that differ from the profile's.")

    @model_validator(mode="after")
    def _pairs_or_none(self) -> Recipe:
        if (self.method == "none") != (self.source is None):
            raise ValueError("method none takes no source; the others need one")
        return self

    @model_validator(mode="after")
    def _settings_are_known(self) -> Recipe:
        try:
            (DPOSettings if self.method == "dpo" else TrainingSettings).model_validate(self.settings)
        except ValidationError as error:
            raise ValueError("; ".join(f"settings.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
        return self


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file and the field."""


def names() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load(name: str) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: There is no such recipe, or a field is missing, unknown or out of range.
    """
    file = _folder() / f"{name}.yaml"
    if not file.is_file():
        raise RecipeError(f"no recipe {name}; there are {', '.join(names())}")
    try:
        return Recipe.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {item['msg']}" for item in error.errors())
        raise RecipeError(f"recipe {name}.yaml: {problems}") from error


def _folder() -> Any:
    return files("rlhi_dagster") / "training" / "recipes"
