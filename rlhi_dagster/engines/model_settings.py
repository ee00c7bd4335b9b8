"""The section ``models:`` of a profile: which model, or which program of this project, plays which role.

What belongs here: the roles, how a player is spelled, and whose model, engine and sampling a role ends up with. What does not: finding the
model itself (``sources.py``) and running it (``loading.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from rlhi_dagster.engines.base import Sampling
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.settings import EngineSettings
from rlhi_dagster.engines.sources import SOURCES, ModelSource

Role = Literal["policy", "reward", "labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", "judge"]
"""What a model is asked for."""
ROLES: tuple[Role, ...] = get_args(Role)
WAYS = (*SOURCES, "builtin", "same_as")
"""To say who plays a role; one of them is given."""
BUILTIN: Mapping[Role, tuple[str, ...]] = {
    "policy": ("town",),
    "reward": ("trained",),
    "labeller": ("classifier",),
    "persona_writer": ("extractive",),
    "rewriter": (),
    "pair_judge": ("rule", "town", "village"),
    "simulated_user": ("template",),
    "judge": ("town", "village"),
}
"""Programs of this project that play a role, beside any model: `town` and `village` know the simulations, `trained` is trained here."""


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


class OwnSampling(BaseModel, frozen=True, extra="forbid"):
    """What of the profile's sampling a role has otherwise."""

    temperature: float | None = Field(default=None, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus mass.")
    max_new_tokens: int | None = Field(default=None, ge=1, description="Longest reply in tokens.")


class ModelSettings(ModelSource, frozen=True, extra="forbid"):
    """Who plays a role: a model by one of the spellings of ``sources.py``, a program of this project, or who plays another role."""

    builtin: str | None = Field(default=None, description="Program of this project.")
    same_as: Role | None = Field(default=None, description="Role whose model, engine and sampling this role has.")
    engine: EngineSettings | None = Field(default=None, description="How the model is run; null for the profile's `engine`.")
    sampling: OwnSampling = Field(default=OwnSampling(), description="What of the profile's `sampling` is otherwise.")


class Models(BaseModel, frozen=True, extra="forbid"):
    """Who plays which role: a name of a program or of another role, or how a model is found and run."""

    policy: ModelSettings = Field(description="The model that is trained: a model, or `town`, trained here from nothing.")
    reward: ModelSettings = Field(description="The reward model: a sequence classifier, or `trained`, on the rewrite pairs.")
    labeller: ModelSettings = Field(
        default=ModelSettings(builtin="classifier"),
        description="Who labels follow-ups: `classifier` alone, or a chat model for what the classifier is not sure of.",
    )
    persona_writer: ModelSettings = Field(
        default=ModelSettings(builtin="extractive"), description="Who writes personas: `extractive`, or a chat model."
    )
    rewriter: ModelSettings = Field(default=ModelSettings(same_as="policy"), description="Chat model that rewrites criticised replies.")
    pair_judge: ModelSettings = Field(
        default=ModelSettings(builtin="rule"),
        description="Who tells whether criticism fits a reply and whether a rewrite meets it: `rule` (length, format and language are read "
        "off), `town` (a grammar), `village` (checkers), or a model.",
    )
    simulated_user: ModelSettings = Field(
        default=ModelSettings(builtin="template"), description="Who points at the first wrong step: `template`, or a chat model."
    )
    judge: tuple[ModelSettings, ...] = Field(
        min_length=1,
        description="Who compares: `town` or `village` (hidden preferences decide), a chat model, `reward` (the reward model), or several.",
    )

    @field_validator("policy", "reward", "labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", mode="before")
    @classmethod
    def _by_name(cls, given: Any, info: Any) -> Any:
        return _named(given, info.field_name)

    @field_validator("judge", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return [_named(each, "judge") for each in (given if isinstance(given, list | tuple) else [given])]

    @model_validator(mode="after")
    def _programs_are_known(self) -> Models:
        for role in ROLES:
            for each in self.of(role):
                if each.builtin is not None and each.builtin not in BUILTIN[role]:
                    raise ValueError(f"{role}: no program {each.builtin}; {_programs(role)}")
                self._owner(role, each)
        return self

    def of(self, role: Role) -> tuple[ModelSettings, ...]:
        """As the profile spells them; one, but for the judge."""
        found = getattr(self, role)
        return found if isinstance(found, tuple) else (found,)

    def players(self, role: Role, engine: EngineSettings, sampling: SamplingSettings, seed: int) -> tuple[Player, ...]:
        """Who plays a role; one, but for the judge.

        Args:
            role: What is asked.
            engine: The profile's, for models without one of their own.
            sampling: The profile's.
            seed: Of the sampling.
        """
        return tuple(self._player(role, each, engine, sampling, seed) for each in self.of(role))

    def _player(self, role: Role, given: ModelSettings, engine: EngineSettings, sampling: SamplingSettings, seed: int) -> Player:
        if given.same_as is not None:
            (other,) = self.players(given.same_as, engine, sampling, seed)[:1]
            return other.changed(given)
        drawn = Sampling(sampling.temperature, sampling.top_p, sampling.max_new_tokens, seed)
        return Player(role, given, engine, drawn).changed(given)

    def _owner(self, role: Role, given: ModelSettings) -> None:
        """Follow `same_as` to its end; raises ValueError where there is none, or where one role cannot have the other's model."""
        seen: list[str] = [role]
        while given.same_as is not None:
            if given.same_as in seen:
                raise ValueError(f"{role}: {' is the same as '.join([*seen, given.same_as])}")
            seen.append(given.same_as)
            given = self.of(given.same_as)[0]
        if len(seen) > 1 and "reward" in seen and seen != ["judge", "reward"]:
            raise ValueError(f"{role} cannot be the same as {seen[1]}: the reward model gives a score, models of other roles write replies")
        if len(seen) > 1 and given.builtin is not None and seen[-1] not in ("policy", "reward") and given.builtin not in BUILTIN[role]:
            raise ValueError(f"{role} cannot be the same as {seen[-1]}, which is {given.builtin}; {_programs(role)}")


@dataclass(frozen=True, slots=True)
class Player:
    """Who plays a role, and how.

    Attributes:
        owner: The role whose model it is: another one, if they are the same.
        settings: How the model is found.
        engine: How it is run.
        sampling: How replies are drawn.
        has_own_temperature: The profile says at which temperature, for this role and not for all.
    """

    owner: Role
    settings: ModelSettings
    engine: EngineSettings
    sampling: Sampling
    has_own_temperature: bool = False

    @property
    def is_trained_here(self) -> bool:
        """Whether the model comes of the project's own training: for every role that has it, it is a model like any other."""
        return self.builtin is not None and self.owner in ("policy", "reward")

    @property
    def builtin(self) -> str | None:
        """The project's own program or model, as the profile spells it; ``None`` for others."""
        return self.settings.builtin

    @property
    def program(self) -> str | None:
        """Name of the program that plays in place of a model; ``None`` where a model does, whoever trained it."""
        return None if self.is_trained_here else self.builtin

    @property
    def name(self) -> str:
        """What to call it: of a folder and a file their last part, of a model its name without the revision."""
        found = self.settings
        if found.folder or found.gguf:
            return Path(str(found.folder or found.gguf)).name
        return str(found.hub or found.served or found.builtin).partition("@")[0]

    @property
    def identity(self) -> str:
        """Digest of what bears on answers; for code versions."""
        spelled = self.settings.model_dump(mode="json", exclude={"engine", "sampling", "same_as"})
        return digest_of(spelled, self.engine.identity, asdict(self.sampling))

    def changed(self, given: ModelSettings) -> Player:
        """The player with another role's own engine and sampling."""
        own = {name: value for name, value in given.sampling.model_dump().items() if value is not None}
        return replace(
            self,
            engine=given.engine or self.engine,
            sampling=replace(self.sampling, **own),
            has_own_temperature=self.has_own_temperature or "temperature" in own,
        )

    def drawing(self, temperature: float | None) -> Sampling:
        """How replies are drawn where a role has a usual ``temperature``, unless the profile names another for it."""
        return self.sampling if temperature is None or self.has_own_temperature else replace(self.sampling, temperature=temperature)


def _named(given: Any, role: Role) -> Any:
    if not isinstance(given, str):
        return given
    if given in BUILTIN[role]:
        return {"builtin": given}
    if given in ROLES and given != role:
        return {"same_as": given}
    raise ValueError(f"{given} is neither a role nor a program; {_programs(role)}; a model is spelled `{{hub: OWNER/NAME@COMMIT}}`")


def _programs(role: Role) -> str:
    programs = BUILTIN[role]
    return f"{role} can be {' or '.join(programs)}, another role's, or a model" if programs else f"{role} can be another role's, or a model"
