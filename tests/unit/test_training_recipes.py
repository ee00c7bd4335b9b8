"""Recipes, the pairs they train on, and how a wrong recipe is reported."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.tables import PREFERENCE_PAIRS
from rlhi_dagster.training import recipes
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, equal_count, pair_set
from rlhi_dagster.training.recipes import Recipe, RecipeError
from rlhi_dagster.training.settings import TrainingSettings

OWN = Recipe(description="own", method="dpo", source="rewrites")
NONE = Recipe(description="none", method="dpo", source="rewrites", persona="none")


def pairs(count: int, source: str = "rewrites", split: str = "train", persona: str = "- short") -> pl.DataFrame:
    rows = [
        dict.fromkeys(PREFERENCE_PAIRS.columns)
        | {"pair_id": f"{source}-{split}-{number:03d}", "source": source, "split": split, "persona": persona}
        | {"prompt": [{"role": "user", "content": "hi"}], "chosen": f"good {number}", "rejected": "bad", "is_kept": True}
        for number in range(count)
    ]
    return pl.DataFrame(rows, schema=PREFERENCE_PAIRS.schema, orient="row")


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_loads_and_bends_only_known_settings(name: str) -> None:
    recipe = recipes.load(name)
    assert set(recipe.settings) <= set(TrainingSettings.model_fields)


def test_the_arms_of_the_paper_and_its_controls_are_there() -> None:
    found = {name: (recipe.method, recipe.source, recipe.persona) for name in recipes.names() for recipe in [recipes.load(name)]}
    assert found == {
        "base": ("none", None, "own"),
        "dpo_rewards": ("dpo", "rewards", "own"),
        "dpo_rewards_shuffled_persona": ("dpo", "rewards_shuffled", "own"),
        "dpo_rewards_user_agnostic": ("dpo", "rewards_none", "own"),
        "dpo_rewrites": ("dpo", "rewrites", "own"),
        "dpo_rewrites_from_scratch": ("dpo", "rewrites_from_scratch", "own"),
        "dpo_rewrites_no_persona": ("dpo", "rewrites", "none"),
        "sft_rewrites": ("sft", "rewrites", "own"),
    }


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("description: x\nmethod: dpo\nsourse: rewrites\n", "sourse"),
        ("description: x\nmethod: ppo\nsource: rewrites\n", "method"),
        ("description: x\nmethod: dpo\nsource: rewards_other\n", "source"),
        ("description: ''\nmethod: none\n", "description"),
        ("method: none\n", "description"),
        ("description: x\nmethod: dpo\n", "source"),
        ("description: x\nmethod: none\nsource: rewrites\n", "source"),
    ],
)
def test_a_wrong_recipe_names_the_file_and_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, field: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match=rf"mine\.yaml: .*{field}"):
        recipes.load("mine")


@pytest.mark.parametrize("text", ["", "- a list\n", "just text\n"])
def test_a_file_that_is_no_mapping_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        recipes.load("mine")


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe dpo_rewritez; there are base, .*sft_rewrites"):
        recipes.load("dpo_rewritez")


def test_the_draw_is_the_same_for_any_order_of_rows_and_changes_with_the_seed() -> None:
    many = pairs(40)
    drawn = pair_set(many, OWN, "train", 10, 7)
    assert drawn.schema == TRAINING_ROWS
    assert drawn.equals(pair_set(many.reverse(), OWN, "train", 10, 7))
    assert set(drawn["pair_id"]) != set(pair_set(many, OWN, "train", 10, 8)["pair_id"])
    assert pair_set(many, OWN, "train", 12, 7).head(10).equals(drawn)


def test_a_pair_set_has_only_its_source_and_split() -> None:
    mixed = pl.concat([pairs(3), pairs(3, "rewards"), pairs(2, split="validation")])
    assert set(pair_set(mixed, OWN, "train", None, 7)["pair_id"]) == {f"rewrites-train-{number:03d}" for number in range(3)}
    assert len(pair_set(mixed, OWN, "validation", None, 7)) == 2


def test_pairs_that_are_not_kept_are_neither_drawn_nor_counted() -> None:
    some = pairs(6).with_columns(is_kept=pl.col("pair_id").str.ends_with("1").not_())
    assert "rewrites-train-001" not in set(pair_set(some, OWN, "train", None, 7)["pair_id"])
    assert equal_count(some, {"own": OWN}, None) == 5


def test_the_persona_is_the_system_message_and_persona_none_leaves_none() -> None:
    def roles(recipe: Recipe, persona: str = "- short") -> list[list[str]]:
        return [[message["role"] for message in row] for row in pair_set(pairs(1, persona=persona), recipe, "train", None, 7)["prompt"]]

    assert roles(OWN) == [["system", "user"]]
    assert roles(NONE) == [["user"]]
    assert roles(OWN, "") == [["user"]]
    assert "- short" in pair_set(pairs(1), OWN, "train", None, 7)["prompt"][0][0]["content"]


def test_both_conditions_train_on_the_same_pairs() -> None:
    own, none = (pair_set(pairs(30), recipe, "train", 10, 7).drop("prompt") for recipe in (OWN, NONE))
    assert own.equals(none)


@pytest.mark.parametrize(
    ("counts", "most", "equal"),
    [
        ({"rewrites": 5, "rewards": 9}, None, 5),
        ({"rewrites": 5, "rewards": 9}, 3, 3),
        ({"rewrites": 5, "rewards": 9, "reasoning": 1}, None, 5),
        ({"rewards": 9}, 20, 9),
        ({}, None, 0),
    ],
)
def test_equally_many_pairs_for_every_recipe(counts: dict[str, int], most: int | None, equal: int) -> None:
    used = {"a": OWN, "b": Recipe(description="b", method="dpo", source="rewards"), "base": Recipe(description="c", method="none")}
    offered = [pairs(count, source) for source, count in counts.items()]
    assert equal_count(pl.concat([PREFERENCE_PAIRS.empty(), *offered, pairs(1, split="validation")]), used, most) == equal
