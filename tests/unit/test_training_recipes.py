"""Recipes, the pairs they train on, and how a wrong recipe is reported."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.tables import PREFERENCE_PAIRS
from rlhi_dagster.graph import declare, partitions
from rlhi_dagster.graph.resources import TrainingRun
from rlhi_dagster.preferences import Source
from rlhi_dagster.profiles import load
from rlhi_dagster.training import recipes
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, drawn_sets, equal_count, pair_set, shares, without_data
from rlhi_dagster.training.recipes import Recipe, RecipeError
from rlhi_dagster.training.settings import TrainingSettings

KTO = ["kto_thumbs", "kto_thumbs_shuffled"]
ONLINE = ["dpo_rewards_online", "dpo_rewards_online_no_persona"]
OWN = Recipe(description="own", method="dpo", sources=(Source.REWRITES,))
NONE = Recipe(description="none", method="dpo", sources=(Source.REWRITES,), persona="none")
BOTH = Recipe(description="both", method="dpo", sources=(Source.REWRITES, Source.REWARDS))


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


def test_the_recipes_train_with_every_profile() -> None:
    for profile in ("sample", "laptop", "paper"):
        trained = recipes.training_settings(recipes.load_all(), load(profile))
        assert set(trained) == set(recipes.names()) - {"base"}


def test_the_arms_of_the_paper_and_its_controls_are_there() -> None:
    found = {name: (recipe.method, recipe.sources, recipe.persona) for name, recipe in recipes.load_all().items()}
    assert found == {
        "base": ("none", (), "own"),
        "dpo_edits": ("dpo", ("edits",), "own"),
        "dpo_edits_no_persona": ("dpo", ("edits",), "none"),
        "dpo_reasoning": ("dpo", ("reasoning",), "own"),
        "dpo_rewards": ("dpo", ("rewards",), "own"),
        "dpo_rewards_online": ("dpo", ("rewards",), "own"),
        "dpo_rewards_online_no_persona": ("dpo", ("rewards_none",), "none"),
        "dpo_rewards_shuffled_persona": ("dpo", ("rewards_shuffled",), "own"),
        "dpo_rewards_user_agnostic": ("dpo", ("rewards_none",), "own"),
        "dpo_rewrites": ("dpo", ("rewrites",), "own"),
        "dpo_rewrites_and_rewards": ("dpo", ("rewrites", "rewards"), "own"),
        "dpo_rewrites_from_scratch": ("dpo", ("rewrites_from_scratch",), "own"),
        "dpo_rewrites_no_persona": ("dpo", ("rewrites",), "none"),
        "dpo_siblings": ("dpo", ("siblings",), "own"),
        "dpo_siblings_no_persona": ("dpo", ("siblings",), "none"),
        "kto_thumbs": ("kto", ("thumbs",), "own"),
        "kto_thumbs_shuffled": ("kto", ("thumbs_shuffled",), "own"),
        "sdpo_follow_ups": ("sdpo", ("follow_ups",), "own"),
        "sdpo_follow_ups_shuffled": ("sdpo", ("follow_ups_shuffled",), "own"),
        "sft_rewrites": ("sft", ("rewrites",), "own"),
    }
    assert [name for name, recipe in recipes.load_all().items() if recipe.rounds] == ONLINE
    assert [name for name, recipe in recipes.load_all().items() if recipe.pairs == "all"] == [
        *("dpo_edits", "dpo_edits_no_persona", "dpo_reasoning", "dpo_siblings", "dpo_siblings_no_persona"),
        *KTO,
    ]


def test_what_is_compared_with_what() -> None:
    assert [claim[:2] for claim in recipes.comparisons(recipes.load_all())] == [
        ("dpo_rewrites", "base"),
        ("dpo_rewrites", "sft_rewrites"),
        ("dpo_rewrites", "dpo_rewrites_from_scratch"),
        ("dpo_rewrites", "dpo_rewrites_no_persona"),
        ("dpo_rewards", "base"),
        ("dpo_rewards", "dpo_rewards_online_no_persona"),
        ("dpo_rewards", "dpo_rewards_shuffled_persona"),
        ("dpo_rewards", "dpo_rewards_user_agnostic"),
        ("dpo_rewards_online", "base"),
        ("dpo_rewards_online", "dpo_rewards"),
        ("dpo_rewards_online", "dpo_rewards_online_no_persona"),
        ("dpo_reasoning", "base"),
        ("dpo_edits", "base"),
        ("dpo_edits", "dpo_edits_no_persona"),
        ("dpo_siblings", "base"),
        ("dpo_siblings", "dpo_siblings_no_persona"),
        ("kto_thumbs", "base"),
        ("kto_thumbs", "kto_thumbs_shuffled"),
        ("sdpo_follow_ups", "base"),
        ("sdpo_follow_ups", "dpo_rewrites"),
        ("sdpo_follow_ups", "dpo_rewards"),
        ("sdpo_follow_ups", "sdpo_follow_ups_shuffled"),
        ("dpo_rewrites_and_rewards", "base"),
        ("dpo_rewrites_and_rewards", "dpo_rewrites"),
        ("dpo_rewrites_and_rewards", "dpo_rewards"),
    ]


def test_a_recipe_says_how_it_is_shown_or_is_a_treatment_of_its_sources() -> None:
    assert (OWN.role, OWN.family, OWN.against) == ("treatment", "rewrites", ())
    assert (BOTH.family, Recipe(description="x", method="none").family) == ("rewrites and rewards", "base")
    control = OWN.model_copy(update={"role": recipes.Role.CONTROL, "against": ("own", "base")})
    arms = {"base": recipes.load("base"), "own": OWN, "control": control, "both": BOTH}
    assert recipes.ranked(arms) == ["base", "own", "control", "both"]
    assert recipes.comparisons(arms) == [
        ("own", "base", "rewrites"),
        ("own", "control", "rewrites"),
        ("control", "base", "rewrites"),
        ("both", "base", "rewrites and rewards"),
    ]


def test_how_a_recipe_is_shown_is_no_part_of_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> tuple[object, ...]:
        (tmp_path / "mine.yaml").write_text(text)
        arms = recipes.load_all()
        sets = drawn_sets(pairs(6), arms, None, 0.5, 7)["mine"]
        run = TrainingRun(
            "mine", "dpo", None, sets.train, sets.validation, recipes.training_settings(arms, load("sample"))["mine"], tmp_path, {}
        )
        return run.inputs, recipes.trained(), recipes.shown()

    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    (tmp_path / "base.yaml").write_text("description: x\nmethod: none\n")
    inputs, trained, shown = read("description: x\nmethod: dpo\nsources: [rewrites]\n")
    for field in ("description: y", "description: x\nrole: control", "description: x\nfamily: f", "description: x\nagainst: [base]"):
        found = read(f"{field}\nmethod: dpo\nsources: [rewrites]\n")
        assert found[:2] == (inputs, trained)
        assert found[2] != shown
    assert read("description: x\nmethod: dpo\nsources: [rewrites]\nsettings: {beta: 0.3}\n")[0] != inputs
    assert read("description: x\nmethod: dpo\nsources: [rewrites]\nsettings: {beta: 0.3}\n")[1:] != (trained, shown)
    (tmp_path / "mine.yaml").write_text("- [")
    assert recipes.trained()["mine"] == "- ["


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("description: x\nmethod: dpo\nsourses: [rewrites]\n", "sourses"),
        ("description: x\nmethod: ppo\nsources: [rewrites]\n", "method"),
        ("description: x\nmethod: dpo\nsources: [rewards_other]\n", r"sources\.0"),
        ("description: x\nmethod: dpo\nsources: rewards\n", "sources"),
        ("description: x\nmethod: dpo\nsources: [rewards, rewards]\n", "sources names one twice"),
        ("description: x\nmethod: dpo\nsources: []\n", "source"),
        ("description: x\nmethod: dpo\nsources: [rewards]\npairs: some\n", "pairs"),
        ("description: x\nmethod: dpo\nsources: [rewards]\nrounds: -1\n", "rounds"),
        ("description: x\nmethod: sft\nsources: [rewards]\nrounds: 2\n", "rounds needs method dpo"),
        ("description: x\nmethod: dpo\nsources: [rewrites]\nrounds: 2\n", "rounds needs .*sources"),
        ("description: x\nmethod: dpo\nsources: [rewards]\nrounds: 2\npersona: none\n", r"rounds needs .*persona none \[rewards_none\]"),
        ("description: x\nmethod: dpo\nsources: [rewards_none]\nrounds: 2\n", r"rounds needs .*sources \[rewards\]"),
        ("description: x\nmethod: sdpo\nsources: [rewrites]\n", r"method sdpo needs sources \[follow_ups\]"),
        ("description: x\nmethod: sft\nsources: [follow_ups]\n", "no other method takes"),
        ("description: x\nmethod: sdpo\nsources: [follow_ups]\nsettings: {beta: 0.1}\n", r"settings\.beta"),
        ("description: x\nmethod: dpo\nsources: [rewards]\nsettings: {learning_rat: 1}\n", r"settings\.learning_rat"),
        ("description: x\nmethod: dpo\nsources: [rewards]\nsettings: {learning_rate: -1}\n", r"settings\.learning_rate"),
        ("description: x\nmethod: sft\nsources: [rewrites]\nsettings: {beta: 0.1}\n", r"settings\.beta"),
        ("description: x\nmethod: dpo\nsources: [rewards\n", "no YAML"),
        ("description: ''\nmethod: none\n", "description"),
        ("method: none\n", "description"),
        ("description: x\nmethod: dpo\n", "source"),
        ("description: x\nmethod: none\nsources: [rewrites]\n", "source"),
        ("description: x\nmethod: kto\nsources: [thumbs]\n", "method kto needs .*pairs all"),
        ("description: x\nmethod: kto\nsources: [rewrites]\npairs: all\n", r"method kto needs sources \[thumbs\]"),
        ("description: x\nmethod: dpo\nsources: [thumbs]\npairs: all\n", "no other method takes"),
        ("description: x\nmethod: kto\nsources: [thumbs]\npairs: all\nsettings: {sft_weight: 1}\n", r"settings\.sft_weight"),
        ("description: x\nmethod: none\nrole: contrl\n", "role: .*'treatment', 'control' or 'baseline'"),
        ("description: x\nmethod: none\nagainst: base\n", "against"),
        ("description: x\nmethod: none\nagainst: [bas, mine]\n", "against: no other recipe bas, mine; there are mine"),
    ],
)
def test_a_wrong_recipe_names_the_file_and_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, field: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match=rf"^recipe mine\.yaml.*{field}"):
        recipes.load("mine")


def test_settings_that_do_not_go_with_the_profiles_name_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("description: x\nmethod: dpo\nsources: [rewards]\nsettings: {batch_size: 6}\n")
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match=r"recipe mine\.yaml: .*profile sample: batch_size 6 is not a multiple of micro_batch_size 4"):
        recipes.training_settings(recipes.load_all(), load("sample"))


def test_adding_a_recipe_is_adding_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert declare.Place(load("town")).recipes.get_partition_keys() == recipes.names()
    for name in recipes.names():
        (tmp_path / f"{name}.yaml").write_text((recipes._folder() / f"{name}.yaml").read_text())
    (tmp_path / "mine.yaml").write_text("description: mine\nmethod: dpo\nsources: [rewrites]\nsettings: {beta: 0.3}\n")
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    keys = partitions.recipes(recipes.names()).get_partition_keys()
    assert keys[-4:] == ["mine", "sdpo_follow_ups", "sdpo_follow_ups_shuffled", "sft_rewrites"]
    sets = drawn_sets(pl.concat([pairs(6), pairs(6, "rewards")]), recipes.load_all(), None, 0.5, 7)
    assert len(sets["mine"].train) == 6
    assert recipes.training_settings(recipes.load_all(), load("sample"))["mine"].beta == 0.3  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "- a list\n", "just text\n"])
def test_a_file_that_is_no_mapping_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        recipes.load("mine")


def test_a_profile_trains_those_of_the_project_that_it_names_and_all_of_its_own(tmp_path: Path) -> None:
    for name in ("mine", "dpo_edits"):
        (tmp_path / f"{name}.yaml").write_text("description: mine\nmethod: dpo\nsources: [rewrites]\n")
    assert recipes.names(None, ["sft_rewrites"]) == ["base", "sft_rewrites"]
    assert recipes.names(str(tmp_path), ["sft_rewrites"]) == ["base", "dpo_edits", "mine", "sft_rewrites"]
    assert recipes.names(str(tmp_path), []) == ["base", "dpo_edits", "mine"]
    assert recipes.load_all(str(tmp_path), [])["dpo_edits"].description == "mine"
    with pytest.raises(RecipeError, match=r"project_recipes: no recipe mine; there are base, .*sft_rewrites"):
        recipes.names(str(tmp_path), ["mine"])


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


def test_several_sources_give_equally_many_pairs_and_the_first_gives_the_rest() -> None:
    assert shares(7, (Source.REWRITES, Source.REWARDS, Source.REASONING)) == {"rewrites": 3, "rewards": 2, "reasoning": 2}
    mixed = pl.concat([pairs(9), pairs(9, "rewards")])
    drawn = pair_set(mixed, BOTH, "train", 5, 7)["pair_id"].to_list()
    assert sorted(pair_id.split("-")[0] for pair_id in drawn) == ["rewards"] * 2 + ["rewrites"] * 3
    alone = pair_set(mixed, OWN, "train", 3, 7)["pair_id"]
    assert {pair_id for pair_id in drawn if pair_id.startswith("rewrites")} == set(alone)
    assert [pair_id.split("-")[0] for pair_id in pair_set(mixed, BOTH, "train", 18, 7)["pair_id"]] != ["rewrites"] * 9 + ["rewards"] * 9


@pytest.mark.parametrize(("rewrites", "rewards", "equal"), [(5, 5, 10), (9, 5, 11), (5, 9, 10), (4, 0, 4), (0, 0, 0)])
def test_a_recipe_of_two_sources_counts_as_what_it_can_draw(rewrites: int, rewards: int, equal: int) -> None:
    offered = pl.concat([PREFERENCE_PAIRS.empty(), pairs(rewrites), pairs(rewards, "rewards")])
    arms = {"both": BOTH} if rewards else {"both": BOTH, "own": OWN}
    count = equal_count(offered, arms, None)
    assert count == equal
    if rewards:
        assert len(pair_set(offered, BOTH, "train", count, 7)) == count
        assert len(pair_set(offered, BOTH, "train", count + 1, 7)) <= count


def test_a_recipe_on_all_its_pairs_takes_none_from_the_others() -> None:
    reasoning = Recipe(description="all", method="dpo", sources=(Source.REASONING,), pairs="all")
    offered = pl.concat([pairs(8), pairs(2, "reasoning"), pairs(1, "reasoning", "validation"), pairs(4, split="validation")])
    sets = drawn_sets(offered, {"own": OWN, "all": reasoning}, 5, 0.4, 7)
    assert {name: (len(each.train), len(each.validation)) for name, each in sets.items()} == {"own": (5, 2), "all": (2, 1)}


def test_a_recipe_without_a_pair_says_so_with_its_source_and_where_to_look() -> None:
    offered = pl.concat([pairs(3), pairs(2, "rewards").with_columns(is_kept=False), pairs(2, "rewards", "validation")])
    arms = {"own": OWN, "both": BOTH, "base": Recipe(description="c", method="none")}
    told = without_data(offered, arms)
    assert told == {
        "both": "recipe both: no kept training pair of source rewards; see the drop reasons in reward_pairs and preference_pairs"
    }


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
    used = {"a": OWN, "b": Recipe(description="b", method="dpo", sources=(Source.REWARDS,)), "base": Recipe(description="c", method="none")}
    offered = [pairs(count, source) for source, count in counts.items()]
    assert equal_count(pl.concat([PREFERENCE_PAIRS.empty(), *offered, pairs(1, split="validation")]), used, most) == equal
