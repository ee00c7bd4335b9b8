"""Training recipes: one YAML file each; the file's stem is the recipe's name and partition key.

What belongs here: the shape of a recipe, how a wrong one is told, in which order recipes are shown and which are compared. What does not:
which pairs one draws (``pair_sets.py``), the values of its settings, which are the profile's where the recipe says nothing, and drawing.

The fields in ``SHOWN`` say how a recipe is shown and make no difference to how it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from rlhi_dagster.preferences import Source
from rlhi_dagster.training.follow_ups import FollowUps
from rlhi_dagster.training.settings import OF_METHOD, TrainingSettings
from rlhi_dagster.training.thumbs import Thumbs


class Trains(Protocol):
    """What of a profile says how recipes train."""

    @property
    def name(self) -> str:
        """Of the profile."""
        ...

    def training_of(self, recipe: Recipe) -> TrainingSettings:
        """The profile's settings for a recipe, with the recipe's own changes."""
        ...


SHOWN = ("description", "role", "family", "against")
"""Fields of a recipe that nothing but the report reads."""
BASE = "base"
"""The untrained policy: every treatment is compared with it."""


class Role(StrEnum):
    """What a recipe is there for."""

    TREATMENT = "treatment"
    """Should beat the base."""
    CONTROL = "control"
    """Lacks what a treatment should gain by, and should stay near the base if that is what it gains by."""
    BASELINE = "baseline"
    """What treatments are measured against."""


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """One training arm."""

    description: str = Field(min_length=1, description="What the arm is, in a sentence.")
    role: Role = Field(default=Role.TREATMENT, description="`treatment`, `control` (drawn hollow) or `baseline`.")
    family: str = Field(
        default="",
        description="Recipes of a family share a colour and stand together, and p-values are corrected for all that is claimed of them; "
        "the sources if left out.",
    )
    against: tuple[str, ...] = Field(
        default=(),
        description="Recipes that it is compared with on the same requests; a treatment always with `base`, too. A control names "
        "what it is the control of.",
    )
    method: Literal["none", "sft", "dpo", "kto", "sdpo"] = Field(description="`none` is the starting policy itself.")
    sources: tuple[Source | Thumbs | FollowUps, ...] = Field(
        default=(),
        description="Which preference pairs, as in `preference_pairs.source`; of several sources equally many. Of the methods `kto` and "
        "`sdpo` which examples, as in `thumb_examples.source` and `follow_up_examples.source`.",
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

    @model_validator(mode="before")
    @classmethod
    def _sources_are_the_family(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("family") and isinstance(given.get("sources", ()), list | tuple):
            return {**given, "family": " and ".join(map(str, given.get("sources", ()))) or BASE}
        return given

    @model_validator(mode="after")
    def _pairs_or_none(self) -> Recipe:
        if (self.method == "none") == bool(self.sources):
            raise ValueError("method none takes no sources; the others need one")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources names one twice")
        return self

    @model_validator(mode="after")
    def _thumbs_are_for_kto(self) -> Recipe:
        of_thumbs = [isinstance(source, Thumbs) for source in self.sources]
        if (self.method == "kto" or any(of_thumbs)) and (self.method, self.pairs, of_thumbs) != ("kto", "all", [True]):
            raise ValueError(
                "method kto needs sources [thumbs] or [thumbs_shuffled] and pairs all, and no other method takes these sources"
            )
        return self

    @model_validator(mode="after")
    def _follow_ups_are_for_sdpo(self) -> Recipe:
        of_follow_ups = [isinstance(source, FollowUps) for source in self.sources]
        if (self.method == "sdpo" or any(of_follow_ups)) and (self.method, of_follow_ups) != ("sdpo", [True]):
            raise ValueError("method sdpo needs sources [follow_ups] or [follow_ups_shuffled], and no other method takes these sources")
        return self

    @model_validator(mode="after")
    def _rounds_rank_candidates(self) -> Recipe:
        ranked_under = {"own": Source.REWARDS, "none": Source.REWARDS_NONE}[self.persona]
        if self.rounds and (self.method, self.sources, self.pairs) != ("dpo", (ranked_under,), "equal"):
            raise ValueError(
                "rounds needs method dpo, pairs equal, and sources [rewards], or with persona none [rewards_none]: candidates are ranked "
                "under the persona that is shown"
            )
        return self

    @model_validator(mode="after")
    def _settings_are_known(self) -> Recipe:
        try:
            OF_METHOD.get(self.method, TrainingSettings).model_validate(self.settings)
        except ValidationError as error:
            # What concerns several settings at once depends on the profile's: see `training_settings`.
            if wrong := [f"settings.{field}: {message}" for field, message in _problems(error) if field]:
                raise ValueError("; ".join(wrong)) from error
        return self


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file and the field."""


def names(folder: str | None = None, only: Sequence[str] | None = None) -> list[str]:
    """Names of the recipes that are trained, sorted.

    Args:
        folder: Recipes laid over those of the project.
        only: Those of the project that are wanted besides the untrained policy; all if ``None``.

    Raises:
        RecipeError: One that is wanted is not there.
    """
    ours = _files(None)
    if strangers := sorted({*(only or ())} - ours.keys()):
        raise RecipeError(f"project_recipes: no recipe {', '.join(strangers)}; there are {', '.join(sorted(ours))}")
    unwanted = set() if only is None else ours.keys() - {BASE, *only}
    return sorted(name for name, file in _files(folder).items() if name not in unwanted or file != ours[name])


def load(name: str, folder: str | None = None) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: There is no such recipe, or a field is missing, unknown or out of range.
    """
    file = _files(folder).get(name)
    if file is None:
        raise RecipeError(f"no recipe {name}; there are {', '.join(names(folder))}")
    try:
        recipe = Recipe.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        problems = "; ".join(f"{field}: {message}" if field else message for field, message in _problems(error))
        raise RecipeError(f"recipe {name}.yaml: {problems}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name}.yaml is no YAML: {' '.join(str(error).split())}") from error
    if strangers := sorted({*recipe.against} - ({*names(folder)} - {name})):
        raise RecipeError(f"recipe {name}.yaml: against: no other recipe {', '.join(strangers)}; there are {', '.join(names(folder))}")
    return recipe


def load_all(folder: str | None = None, only: Sequence[str] | None = None) -> dict[str, Recipe]:
    """Every recipe of ``names`` by name."""
    return {name: load(name, folder) for name in names(folder, only)}


def ranked(arms: Mapping[str, Recipe]) -> list[str]:
    """Names in the order in which they are shown.

    The base and the other baselines first, then a family after the other: those of one source in the order of ``Source``, then mixed ones;
    in a family treatments before controls, then by name.
    """
    order, roles = [*Source, *Thumbs, *FollowUps], list(Role)
    of_family: dict[str, list[tuple[int, list[int]]]] = {}
    for recipe in arms.values():
        of_family.setdefault(recipe.family, []).append((len(recipe.sources), [order.index(source) for source in recipe.sources]))

    def rank(name: str) -> tuple[Any, ...]:
        recipe = arms[name]
        return (name != BASE, recipe.role != Role.BASELINE, min(of_family[recipe.family]), recipe.family, roles.index(recipe.role), name)

    return sorted(arms, key=rank)


class Claim(NamedTuple):
    """That a recipe is better than another; ``family`` is the better one's, whose claims are corrected together."""

    left: str
    right: str
    family: str


def comparisons(arms: Mapping[str, Recipe]) -> list[Claim]:
    """Which recipes are compared: treatments with the base, and all with what they are against."""
    order = {name: place for place, name in enumerate(ranked(arms))}
    found = {(name, BASE) for name, recipe in arms.items() if recipe.role is Role.TREATMENT and BASE in arms}
    for name, recipe in arms.items():
        for other in set(recipe.against) & set(arms):
            is_less = recipe.role is not Role.TREATMENT and arms[other].role is Role.TREATMENT
            found.add((other, name) if is_less else (name, other))
    claims = [Claim(left, right, arms[left].family) for left, right in found]
    return sorted(claims, key=lambda claim: (order[claim.left], order[claim.right]))


def deviations(arms: Mapping[str, Recipe], max_pairs: int | None) -> list[str]:
    """Where the recipes depart from the paper, whose arms have 2,832 to 4,538 pairs."""
    others = [f"`{name}`" for name in ranked(arms) if arms[name].pairs == "all"]
    most = f", {max_pairs:,} at most" if max_pairs else ""
    but = f" but {', '.join(others)}" if others else ""
    return [f"Training uses as many pairs for every recipe{but}{most}, so that arms differ in kind and not in amount."]


def trained(folder: str | None = None, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The fields of ``names`` that bear on training and on what the model is shown, by name; read without judging them."""
    there = _files(folder)
    return {name: _fields(there[name], shown=False) for name in names(folder, only)}


def shown(folder: str | None = None, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The fields of ``names`` in ``SHOWN``, by name; read without judging them."""
    there = _files(folder)
    return {name: _fields(there[name], shown=True) for name in names(folder, only)}


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


def _fields(file: Any, *, shown: bool) -> Any:
    text = file.read_text()
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return {field: value for field, value in given.items() if (field in SHOWN) == shown} if isinstance(given, dict) else text


def _folder() -> Any:
    return files("rlhi_dagster") / "training" / "recipes"
