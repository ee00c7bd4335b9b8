"""The profile as a body sees it: what is declared can be read, and nothing else, whichever way it is asked for."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.graph import declare
from rlhi_dagster.graph.declared_settings import Settings, UndeclaredSettingError
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import recipes
from tests.built import built

SAMPLE = profiles.load("sample")


def seen(*reads: str) -> Profile:
    """The sample's profile as an asset named ``mine`` sees it."""
    return Settings(SAMPLE).seen_by("mine", frozenset(reads)).profile


def undeclared(setting: str) -> Any:
    return pytest.raises(
        UndeclaredSettingError, match=rf"^mine reads the setting {setting} without declaring it: add it to the asset's `reads`$"
    )


def test_a_declared_setting_and_what_is_below_it_can_be_read() -> None:
    profile = seen("rewrites", "candidates.count", "seed")
    assert profile.rewrites == SAMPLE.rewrites
    assert profile.rewrites.filters.min_reward_margin == SAMPLE.rewrites.filters.min_reward_margin
    assert (profile.candidates.count, profile.seed) == (SAMPLE.candidates.count, SAMPLE.seed)


def test_an_undeclared_setting_is_named_with_the_asset() -> None:
    profile = seen("candidates.count", "rewrites_of_old", "see")
    for setting, read in {
        "candidates.min_margin": lambda: profile.candidates.min_margin,
        "rewrites": lambda: profile.rewrites,
        "seed": lambda: profile.seed,
        "models": lambda: profile.models,
        "source": lambda: profile.source.location,
    }.items():
        with undeclared(setting):
            read()


def test_methods_and_properties_of_the_profile_are_seen_through() -> None:
    recipe = recipes.load("dpo_rewards_user_agnostic")
    assert seen("sft", "dpo", "dpo_on_rewards").training_of(recipe) == SAMPLE.dpo_on_rewards
    with undeclared("dpo_on_rewards"):
        seen("sft", "dpo").training_of(recipe)
    assert seen("recipes").arms == SAMPLE.arms
    with undeclared("recipes"):
        _ = seen("sft").arms
    assert profiles.salt(seen("salt", "truth")) == "the-town-is-public"
    with undeclared("truth"):
        profiles.salt(seen("salt"))


def test_a_role_is_declared_as_one_thing() -> None:
    assert seen("models.judge").players("judge") == SAMPLE.players("judge")
    assert seen("models.judge").player("judge") == SAMPLE.player("judge")
    for reads in ((), ("models.policy",), ("models",), ("engine", "sampling", "seed")):
        with undeclared("models.judge"):
            seen(*reads).players("judge")


def test_where_outputs_lie_and_what_they_are_called_is_no_setting() -> None:
    profile = seen()
    assert (profile.name, profile.root, profile.source_facts) == (SAMPLE.name, SAMPLE.root, SAMPLE.source_facts)


def test_an_asset_that_reads_what_it_does_not_declare_fails(tmp_path: Path) -> None:
    @declare.asset("mine", "training", set(), reads=("seed",))
    def mine(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
        """Reads a setting, and another one that it does not declare."""
        context.log.info(str(settings.profile.seed + settings.profile.candidates.count))

    with undeclared(r"candidates"):
        dg.materialize(built(SAMPLE, mine), resources={"settings": Settings(SAMPLE)})


def test_an_asset_that_asks_a_role_which_it_does_not_declare_fails(tmp_path: Path) -> None:
    @declare.asset("mine", "training", set(), reads=("models.reward",))
    def mine(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        lake: dg.ResourceParam[Lake],
        workers: dg.ResourceParam[Workers],
    ) -> None:
        """Asks a model."""
        Calls(context, workers, settings, lake).asked("policy")

    resources = {"settings": Settings(SAMPLE), "lake": Lake(root=str(tmp_path)), "workers": Workers(tmp_path)}
    with undeclared(r"models\.policy"):
        dg.materialize(built(SAMPLE, mine), resources=resources)
