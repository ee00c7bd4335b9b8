"""Profiles: every setting of a run in one YAML file, chosen by ``RLHI_PROFILE`` and validated before anything starts.

What belongs here: how the stages' settings make a profile, the environment variables that choose and bend one, and where its outputs lie.
What does not: a stage's own settings (its ``settings.py``), how a file is read (``profiles/files.py``), and the values
(``profiles/*.yaml``), each with its source beside it.

Environment: ``RLHI_PROFILE`` (a name or a path to a YAML file; default ``sample``), ``RLHI_SOURCE`` (other conversations than the
profile's: path, glob or ``hf://``), ``RLHI_DATA`` (folder of all outputs; default ``data/`` of this checkout), ``RLHI_SALT`` (secret
that makes user fingerprints; required by ``laptop`` and ``paper``).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts
from rlhi_dagster.conversations.splits import SplitSettings
from rlhi_dagster.engines.forecast import Limits
from rlhi_dagster.engines.model_settings import Models, Player, Role, SamplingSettings
from rlhi_dagster.engines.questions import check_prompts
from rlhi_dagster.engines.settings import EngineSettings, WorkerSettings
from rlhi_dagster.evaluation.settings import EvaluationSettings
from rlhi_dagster.feedback.diversity.corpora import CorpusSettings
from rlhi_dagster.feedback.settings import LabelledSettings, LabellerSettings, WishSettings
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.preferences.settings import CandidateSettings, ExplicitPairSettings, PairSettings, RewriteSettings, pair_judge_deviations
from rlhi_dagster.profiles import files, salts
from rlhi_dagster.profiles.files import ROOT, ProfileError, absolute, available, slug
from rlhi_dagster.reasoning.settings import ReasoningSettings
from rlhi_dagster.training import recipes as recipe_files
from rlhi_dagster.training.recipes import Recipe
from rlhi_dagster.training.settings import DPOSettings, KTOSettings, SDPOSettings, TrainingSettings
from rlhi_dagster.training.starting_models import HumanPreferences, PolicySettings, RewardSettings, policy_deviations

_HUB_DATASET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)")

SIMULATIONS = ("town", "village")
"""Programs that know a simulation."""

__all__ = ["ROOT", "Profile", "ProfileError", "available", "current", "data_root", "load"]


class Profile(BaseModel, frozen=True, extra="forbid"):
    """Every setting of a run."""

    name: str = Field(description="Name of the profile.")
    source: SourceSettings = Field(description="Where conversations come from.")
    first_month: str = Field(pattern=r"^\d{4}-\d{2}$", description="First month partition.")
    split: SplitSettings = Field(description="Shares of users kept from training.")
    salt: str | None = Field(default=None, description="Public salt of simulated users; null to require RLHI_SALT.")
    truth: str | None = Field(default=None, description="Folder with the truth of a simulated source; null for real logs.")
    models: Models = Field(description="Who plays which role.")
    engine: EngineSettings = Field(description="How models are run that have no engine of their own.")
    sampling: SamplingSettings = Field(description="How replies are drawn, where a role does not say otherwise.")
    workers: WorkerSettings = Field(default=WorkerSettings(), description="Worker processes that do one step side by side.")
    limits: Limits = Field(default=Limits(), description="What the model calls of one asset may cost in one run.")
    recipes: str | None = Field(
        default=None, description="Folder of recipes laid over those of the project; relative to the file that names it."
    )
    project_recipes: tuple[str, ...] | None = Field(
        default=None,
        description="Which of the project's recipes are trained; null for all. `base`, the untrained policy, always is there, and so are "
        "those of the folder `recipes`.",
    )
    prompts: str | None = Field(
        default=None, description="Folder of prompts laid over those of the project; relative to the file that names it."
    )
    policy: PolicySettings | None = Field(default=None, description="How the town's model is trained, with `models.policy: town`.")
    reward: RewardSettings = Field(default=RewardSettings(), description="How the reward model is trained and tried.")
    labeller: LabellerSettings = Field(default=LabellerSettings(), description="How follow-ups are labelled.")
    unmet_wishes: WishSettings = Field(default=WishSettings(), description="What is shown of what users complain about.")
    personas: PersonaSettings = Field(default=PersonaSettings(), description="What personas are made of, and how much of it.")
    rewrites: RewriteSettings = Field(description="How criticised replies are rewritten, and which rewrites become pairs.")
    explicit_pairs: ExplicitPairSettings = Field(
        default=ExplicitPairSettings(), description="Which edits, regenerations and choices between drafts become pairs."
    )
    candidates: CandidateSettings = Field(description="Sampling and ranking of candidates.")
    reasoning: ReasoningSettings = Field(description="Erroneous solutions.")
    pairs: PairSettings = Field(default=PairSettings(), description="Duplicates and decontamination of the union of all pairs.")
    max_pairs: int | None = Field(default=None, ge=1, description="Most training pairs per recipe; all recipes use equally many.")
    validation_fraction: float = Field(gt=0, lt=1, description="Share of training users whose pairs validate.")
    sft: TrainingSettings = Field(description="Training of `sft` recipes.")
    dpo: DPOSettings = Field(description="Training of `dpo` recipes.")
    dpo_on_rewards: DPOSettings | None = Field(
        default=None,
        description="Training of `dpo` recipes on reward pairs, whose sides differ more than those of rewrites; null for `dpo`.",
    )
    kto: KTOSettings | None = Field(
        default=None, description="Training of `kto` recipes, on thumbs; null for what `dpo` has that is not DPO's own."
    )
    sdpo: SDPOSettings | None = Field(
        default=None, description="Training of `sdpo` recipes, on follow-ups; null for what `dpo` has that is not DPO's own."
    )
    evaluation: EvaluationSettings = Field(description="What checkpoints are tried on.")
    diversity_corpora: tuple[CorpusSettings, ...] = Field(
        default=(), description="Corpora whose prompts are compared with the source's in `contextual_diversity`."
    )
    seed: int = Field(description="Seed of everything that is drawn.")

    _root: Path | None = PrivateAttr(default=None)
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _corpora_have_names_of_their_own(self) -> Profile:
        names = [self.source.name, *(corpus.name for corpus in self.diversity_corpora)]
        if len(set(names)) < len(names):
            raise ValueError(f"diversity_corpora: source and corpora need different names, not {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _truth_is_of_the_source(self) -> Profile:
        """Only a simulation, whose logs lie beside its truth, goes without a secret salt and shows conversations in the report."""
        if self.truth is None:
            return self
        logs, beside = Path(absolute(self.source.location)).resolve(), project_path(self.truth).resolve().parent
        if "://" in self.source.location or beside not in (logs, logs.parent):
            raise ValueError(
                f"truth: {self.truth} is about simulated users whose logs lie beside it, and source.location is {self.source.location}; "
                "for real logs write truth: null, and set RLHI_SALT to a secret"
            )
        return self

    @model_validator(mode="after")
    def _somebody_is_evaluated(self) -> Profile:
        if not getattr(self.split, self.evaluation.users):
            raise ValueError(f"evaluation.users: {self.evaluation.users} is nobody, as split.{self.evaluation.users} is 0")
        return self

    @model_validator(mode="after")
    def _programs_have_what_they_need(self) -> Profile:
        if self.models.policy.builtin == "town" and self.policy is None:
            raise ValueError("models.policy: town is trained here and needs the section policy: town, corpus and training")
        if self.models.reward.builtin == "trained" and self.reward.training is None:
            raise ValueError("models.reward: trained needs reward.training, or name a reward model: {hub: OWNER/NAME@COMMIT}")
        if (program := self.player("pair_judge").program) in SIMULATIONS and self.truth is None:
            raise ValueError(f"models.pair_judge: {program} reads replies of the simulation only; name rule or a chat model for real logs")
        return self

    @model_validator(mode="after")
    def _models_have_engines_that_can_run_them(self) -> Profile:
        if self.player("reward").engine.kind == "openai":
            raise ValueError("models.reward: a server of chat completions gives no rewards; set its engine to transformers or vllm")
        for role in ("policy", "labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", "judge"):
            for each in self.players(role):
                is_served = each.settings.served is not None
                if each.program is None and is_served != (each.engine.kind == "openai"):
                    raise ValueError(
                        f"models.{role}: an engine of kind openai takes a model that is `served: NAME@VERSION`, others take none"
                    )
        return self

    def placed(self, root: Path, origins: Mapping[str, str]) -> Profile:
        """The same settings with their folder of outputs, and where their values come from."""
        copy = self.model_copy()
        copy._root, copy._origins = root, dict(origins)  # type: ignore[misc]  # frozen are the settings, not these
        return copy

    @property
    def root(self) -> Path:
        """Folder of all outputs; that of the environment's profile where nobody said otherwise."""
        return self._root or data_root()

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value that is not a default comes from, by dotted path."""
        return self._origins

    @property
    def source_facts(self) -> dict[str, Any]:
        """What manifests tell of the conversations: ``conversations`` (the source's name), ``hub_dataset`` and ``is_simulated``."""
        on_hub = _HUB_DATASET.match(self.source.location)
        return {"conversations": self.source.name, "hub_dataset": on_hub and on_hub[1], "is_simulated": bool(self.truth)}

    @property
    def arms(self) -> dict[str, Recipe]:
        """The recipes that are trained, by name.

        Raises:
            RecipeError: One of them is not there or cannot be used; the message names the file and the field.
        """
        return recipe_files.load_all(self.recipes, self.project_recipes)

    def players(self, role: Role) -> tuple[Player, ...]:
        """Who plays a role, and how; one, but for the judge."""
        return self.models.players(role, self.engine, self.sampling, self.seed)

    def player(self, role: Role) -> Player:
        """Who plays a role that one plays; of several judges the first."""
        return self.players(role)[0]

    def deviations(self) -> list[str]:
        """Where a run with this profile departs from the paper, a sentence each; `code` is in backticks."""
        said = [*self.source.deviations(), *self.labeller.deviations(self._model("labeller"))]
        said += [*self.personas.deviations(self._model("persona_writer")), *self.sampling.deviations()]
        said += policy_deviations(self.policy, self._model("policy"))
        said += pair_judge_deviations(self.player("pair_judge").program, self._model("pair_judge"))
        said += self.rewrites.deviations(None if self.player("rewriter").owner == "policy" else self._model("rewriter"))
        said += [*self.candidates.deviations(), *self.reward.deviations(self._model("reward"))]
        said += [*self.reasoning.deviations(self._model("simulated_user")), *self.dpo.deviations("DPO")]
        said += self.dpo_on_rewards.deviations("DPO on pairs by reward") if self.dpo_on_rewards else []
        return [*said, *self.evaluation.deviations([None if each.program else each.name for each in self.players("judge")])]

    def _model(self, role: Role) -> str | None:
        """Name of the model that plays a role; ``None`` for a program, and for the role's own model if it is trained here."""
        player = self.player(role)
        is_no_model = player.program is not None or (player.is_trained_here and player.owner == role)
        return None if is_no_model else player.name

    def training_of(self, recipe: Recipe) -> TrainingSettings:
        """How a recipe's checkpoint is trained: the profile's settings for its method and sources, with the recipe's own changes."""
        from_rewards = any(source.startswith("rewards") for source in recipe.sources)
        base: TrainingSettings = self.dpo_on_rewards or self.dpo if from_rewards else self.dpo
        if recipe.method == "sft":
            base = self.sft
        elif recipe.method == "kto":
            base = self.kto or self._kto_like_dpo()
        elif recipe.method == "sdpo":
            base = self.sdpo or SDPOSettings.model_validate(self._shared_with_dpo())
        return type(base).model_validate(base.model_dump() | recipe.settings)

    def _kto_like_dpo(self) -> KTOSettings:
        """KTO's own defaults beside what all methods share of `dpo`; a forward pass needs two examples at least."""
        return KTOSettings.model_validate({**self._shared_with_dpo(), "micro_batch_size": max(self.dpo.micro_batch_size, 2)})

    def _shared_with_dpo(self) -> dict[str, Any]:
        """What all methods share of `dpo`, but for a bound that is of the method's own loss."""
        return self.dpo.model_dump(include=set(TrainingSettings.model_fields) - {"max_memorisation"})


def load(name: str, source: str | None = None, environment: Mapping[str, str] = os.environ) -> Profile:
    """Read and validate a profile.

    Args:
        name: Name of a profile, or path to a YAML file.
        source: Location of conversations that replace the profile's own.
        environment: Where ``RLHI_DATA`` is looked up.

    Raises:
        ProfileError: There is no such profile, or a setting is missing, unknown or out of range.
    """
    file, settings, origins = files.read(name)
    if settings.get("prompts"):
        _check_prompts(settings["prompts"])
    if source:
        _replace_source(settings, origins, source)
    try:
        profile = Profile(**settings)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'profile'}: {item['msg']}" for item in error.errors())
        raise ProfileError(f"{file}: {problems}") from error
    return profile.placed(_folder(name, source, environment), origins)


def _check_prompts(folder: str) -> None:
    try:
        check_prompts(folder)
    except ValueError as error:
        raise ProfileError(str(error)) from error


def _replace_source(settings: dict[str, Any], origins: dict[str, str], location: str) -> None:
    """Read ``location`` instead of the profile's own source; a simulation's judges know its replies and users only."""
    try:
        kind = detect_kind(absolute(location))
    except ValueError as error:
        raise ProfileError(f"RLHI_SOURCE={location}: {error}") from error
    # Column names and languages of the profile's own source say nothing about another one.
    kept = {name: value for name, value in (settings.get("source") or {}).items() if name not in ("fields", "languages")}
    settings["source"] = {**kept, "name": slug(location), "kind": str(kind), "location": location, "assumed_model": "unknown"}
    settings["truth"] = None
    models = settings.get("models") or {}
    if models.get("pair_judge") in (*SIMULATIONS, *({"builtin": name} for name in SIMULATIONS)):
        settings["models"] = {**models, "pair_judge": "rule"}
        origins["models.pair_judge"] = "RLHI_SOURCE"
    settings["first_month"] = min(str(settings.get("first_month")), "2023-04")
    origins |= dict.fromkeys(("source.name", "source.kind", "source.location", "source.assumed_model", "truth"), "RLHI_SOURCE")


@functools.cache
def current() -> Profile:
    """The profile that the environment chooses."""
    return load(os.environ.get("RLHI_PROFILE", "sample"), os.environ.get("RLHI_SOURCE") or None)


def data_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder of all outputs of the profile that an environment chooses.

    It is ``RLHI_DATA`` or ``data/``; other sources and profiles get folders of their own below it, so nothing mixes. A profile or source
    given by its path is told from others of the same file name by a digest of the absolute path.
    """
    return _folder(environment.get("RLHI_PROFILE", "sample"), environment.get("RLHI_SOURCE"), environment)


def _folder(profile: str, source: str | None, environment: Mapping[str, str]) -> Path:
    root = Path(environment.get("RLHI_DATA") or ROOT / "data").absolute()
    if not (files.is_path(profile) or profile in available()):
        raise ProfileError(files.unknown(profile))  # a name such as ../x would lead out of the folder
    name = slug(str(Path(profile).resolve())) if files.is_path(profile) else profile
    if source:
        return root / "sources" / f"{name}-{slug(source)}"
    return root if name == "sample" else root / "profiles" / name


def source_months(profile: Profile) -> tuple[list[str], int]:
    """The months, from the profile's ``first_month`` on, that the source has rows of, in order, and its rows before.

    Raises:
        ProfileError: There is no such month.
    """
    counted = month_counts(source_settings(profile))
    months = [month for month in counted if month >= profile.first_month]
    before = sum(rows for month, rows in counted.items() if month < profile.first_month)
    if not months:
        rows = f'; {before:,} rows are of earlier months: set first_month: "{min(counted)}"' if before else ""
        raise ProfileError(f"source {profile.source.name} has no rows from {profile.first_month} on{rows}")
    return sorted(months), before


def source_settings(profile: Profile) -> SourceSettings:
    """The source with its location made absolute: relative paths count from the checkout, for a profile, or the working directory."""
    return profile.source.model_copy(update={"location": absolute(profile.source.location)})


def diversity_corpora(profile: Profile) -> list[CorpusSettings]:
    """The corpora to compare with, their locations made absolute as the source's is."""
    return [corpus.model_copy(update={"location": absolute(corpus.location)}) for corpus in profile.diversity_corpora]


def human_preferences(profile: Profile) -> list[HumanPreferences]:
    """The sets of human preferences, their locations made absolute as the source's is."""
    return [each.model_copy(update={"location": absolute(each.location)}) for each in profile.reward.human_preferences]


def labelled_follow_ups(profile: Profile) -> LabelledSettings | None:
    """What to train the classifier from, the conversations' location made absolute as the source's is."""
    given = profile.labeller.training
    return given and given.model_copy(update={"conversations": absolute(given.conversations)})


def project_path(path: str) -> Path:
    """A path of a profile: relative ones count from the checkout."""
    return Path(path) if Path(path).is_absolute() else ROOT / path


def salt(profile: Profile) -> str:
    """The secret that makes user fingerprints: ``RLHI_SALT``, or the public one of simulated users.

    Where the sample's profile reads real logs (``RLHI_SOURCE``) and ``RLHI_SALT`` is not set, a random secret is drawn once and kept
    beside the outputs in the file ``salt``, readable by its owner only; without that file fingerprints cannot be made again.

    Raises:
        ProfileError: The profile carries none and ``RLHI_SALT`` is not set, or what is to protect real people is no secret.
    """
    given = os.environ.get("RLHI_SALT")
    if given:
        if not profile.truth:
            salts.check_secret(given, "RLHI_SALT")
        return given
    if not profile.salt:
        raise ProfileError(
            f"profile {profile.name} needs RLHI_SALT: any secret string, kept for as long as fingerprints must stay the same"
        )
    return profile.salt if profile.truth else salts.kept_secret(profile.root / "salt")
