"""Files of profiles: what extends what, where values come from, what has moved, and the effective profile as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.engines.model_settings import ROLES
from rlhi_dagster.profiles import files
from rlhi_dagster.profiles.files import MOVED, ProfileError
from rlhi_dagster.training.recipes import RecipeError

COMMIT = "1" * 40
SAMPLE = files.read("sample")[1]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RLHI_PROFILE", "RLHI_SOURCE", "RLHI_SALT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))


def written(file: Path, settings: Any) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return str(file)


def extending(tmp_path: Path, base: str = "sample", **settings: Any) -> profiles.Profile:
    return profiles.load(written(tmp_path / "mine.yaml", {"extends": base, **settings}))


# What has moved


@pytest.mark.parametrize("path", sorted(MOVED))
def test_a_setting_that_has_moved_is_told_with_its_new_place(tmp_path: Path, path: str) -> None:
    section, _, name = path.partition(".")
    given = {name: "x"} if name else "x"
    for settings in (SAMPLE | {section: given}, {"extends": "sample", section: given}):
        with pytest.raises(ProfileError) as raised:
            profiles.load(written(tmp_path / "mine.yaml", settings))
        assert str(raised.value) == f"{tmp_path / 'mine.yaml'}: {path} is no setting any more; write {MOVED[path]}"


# What extends what


def test_a_profile_says_only_what_is_otherwise(tmp_path: Path) -> None:
    mine, sample = extending(tmp_path, candidates={"count": 4}, seed=8, dpo={"beta": 0.2}), profiles.load("sample")
    assert (mine.name, mine.seed, mine.candidates.count, mine.dpo.beta) == ("mine", 8, 4, 0.2)
    assert mine.candidates == sample.candidates.model_copy(update={"count": 4})
    assert mine.dpo == sample.dpo.model_copy(update={"beta": 0.2})
    same = set(type(mine).model_fields) - {"name", "seed", "candidates", "dpo"}
    assert {name: getattr(mine, name) for name in same} == {name: getattr(sample, name) for name in same}


def test_a_list_is_replaced_and_null_takes_a_value_away(tmp_path: Path) -> None:
    assert profiles.load("sample").personas.extracts == ("wishes",)
    mine = extending(tmp_path, personas={"extracts": ["languages", "domains"]}, max_pairs=None, dpo_on_rewards=None)
    assert mine.personas.extracts == ("languages", "domains")
    assert (mine.max_pairs, mine.dpo_on_rewards) == (None, None)


def test_a_mapping_of_another_kind_replaces_and_one_of_the_same_kind_is_merged(tmp_path: Path) -> None:
    engine = profiles.load("sample").engine
    assert extending(tmp_path, engine={"kind": "transformers", "batch_size": 3}).engine == engine.model_copy(update={"batch_size": 3})
    other = {"kind": "vllm", "dtype": "bfloat16", "chunk_size": 8}
    assert extending(tmp_path, engine=other).engine.kind == "vllm", "settings of the other kind would be refused"


def test_who_plays_a_role_is_one_thing_and_how_is_another(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", {"extends": "sample", "models": {"judge": {"hub": f"a/b@{COMMIT}", "sampling": {"top_p": 0.5}}}})
    mine = extending(tmp_path, base, models={"judge": {"gguf": "m.gguf"}, "pair_judge": {"sampling": {"temperature": 0.1}}})
    (judge,), (pair_judge,) = mine.players("judge"), mine.players("pair_judge")
    assert (judge.settings.hub, judge.settings.gguf, judge.sampling.top_p) == (None, "m.gguf", 0.5)
    assert (pair_judge.builtin, pair_judge.sampling.temperature) == ("town", 0.1), "a word is merged as what it stands for"
    assert extending(tmp_path, base, models={"judge": "town"}).player("judge").builtin == "town"
    rewriter = extending(tmp_path, base, models={"rewriter": "judge"}).player("rewriter")
    assert rewriter.settings.hub == f"a/b@{COMMIT}"
    several = extending(tmp_path, base, models={"judge": ["town", {"hub": "c/d"}]})
    assert [player.name for player in several.players("judge")] == ["town", "c/d"]


def test_a_package_goes_with_the_file_that_it_was_named_for(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", {"extends": "sample", "models": {"judge": {"gguf": "m.gguf", "package": "llm_m"}}})
    mine = extending(tmp_path, base, models={"judge": {"hub": f"a/b@{COMMIT}"}})
    assert mine.player("judge").settings.package is None
    assert extending(tmp_path, base, seed=1).player("judge").settings.package == "llm_m"


def test_paths_count_from_the_file_that_they_stand_in(tmp_path: Path) -> None:
    (tmp_path / "shared" / "recipes").mkdir(parents=True)
    written(tmp_path / "shared" / "base.yaml", {"extends": "sample", "recipes": "recipes"})
    profile = profiles.load(written(tmp_path / "own" / "mine.yaml", {"extends": "../shared/base.yaml"}))
    assert profile.recipes == str(tmp_path / "shared" / "recipes")


def test_a_profile_that_extends_itself_is_told_with_the_way_round(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    written(first, {"extends": "b.yaml"})
    written(second, {"extends": "a.yaml"})
    with pytest.raises(ProfileError) as raised:
        profiles.load(str(first))
    assert str(raised.value) == f"{first} extends {second} extends {first}: a profile cannot extend itself"


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (
            "smaple",
            "mine.yaml: extends: smaple: no such profile; there are laptop, paper, sample, town, village, village-small, or give the path "
            "of a YAML file",
        ),
        ("gone.yaml", "mine.yaml: extends: gone.yaml: no such profile"),
        (["sample"], r"mine.yaml: extends: name one profile, or the path of one, not \['sample'\]"),
    ],
)
def test_a_base_that_is_not_there_is_named_with_the_file_that_wants_it(tmp_path: Path, base: Any, told: str) -> None:
    with pytest.raises(ProfileError, match=told):
        extending(tmp_path, base)


def test_what_is_wrong_is_told_with_ones_own_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"mine\.yaml: candidates\.cuont"):
        extending(tmp_path, candidates={"cuont": 3})


def test_each_value_says_which_file_it_is_from(tmp_path: Path) -> None:
    written(tmp_path / "base.yaml", {"extends": "sample", "seed": 1, "candidates": {"count": 3}, "models": {"judge": {"hub": "a/b"}}})
    mine = extending(tmp_path, "base.yaml", candidates={"max_requests": 2}, models={"judge": "town"})
    asked = ("seed", "candidates.count", "candidates.max_requests", "candidates.min_margin", "name", "source.location")
    assert {path: mine.origins[path] for path in asked} == {
        "seed": "base.yaml",
        "candidates.count": "base.yaml",
        "candidates.max_requests": "mine.yaml",
        "candidates.min_margin": "sample.yaml",
        "name": "mine.yaml",
        "source.location": "sample.yaml",
    }
    assert not [path for path in mine.origins if path.startswith("models.judge") and mine.origins[path] != "mine.yaml"]
    assert "pairs.near_duplicate_jaccard" not in mine.origins, "a default is in none of the files"


# Recipes of one's own


def test_recipes_of_ones_own_are_laid_over_the_projects(tmp_path: Path) -> None:
    recipe = {"description": "mine", "method": "dpo", "sources": ["rewrites"], "settings": {"beta": 0.3}}
    written(tmp_path / "arms" / "zz_mine.yaml", recipe)
    written(tmp_path / "arms" / "dpo_rewrites.yaml", recipe | {"settings": {"beta": 0.4}})
    mine, sample = extending(tmp_path, recipes="arms"), profiles.load("sample")
    assert set(mine.arms) == {*sample.arms, "zz_mine"}
    betas = {name: mine.training_of(mine.arms[name]).beta for name in ("zz_mine", "dpo_rewrites")}  # type: ignore[attr-defined]
    assert betas == {"zz_mine": 0.3, "dpo_rewrites": 0.4}
    kept = set(sample.arms) - {"dpo_rewrites"}
    assert {name: mine.arms[name] for name in kept} == {name: sample.arms[name] for name in kept}


def test_a_recipe_of_ones_own_that_is_wrong_names_the_file_and_the_field(tmp_path: Path) -> None:
    written(tmp_path / "arms" / "mine.yaml", {"description": "x", "method": "ppo", "sources": ["rewrites"]})
    with pytest.raises(RecipeError, match=r"^recipe mine\.yaml: method: "):
        _ = extending(tmp_path, recipes="arms").arms


@pytest.mark.parametrize("setting", ["recipes", "prompts"])
def test_a_folder_that_is_not_there_is_told(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ProfileError, match=rf"mine\.yaml: {setting}: {tmp_path / 'gone'} is no folder"):
        extending(tmp_path, **{setting: "gone"})


# The effective profile as text


@pytest.mark.parametrize("name", profiles.available())
def test_the_text_of_a_profile_is_a_profile_with_the_same_settings(tmp_path: Path, name: str) -> None:
    profile = profiles.load(name)
    again = profiles.load(written(tmp_path / "again.yaml", files.text(profile, profile.origins)))
    assert again.model_dump() == profile.model_dump()
    assert {role: again.players(role) for role in ROLES} == {role: profile.players(role) for role in ROLES}


def test_the_text_says_where_each_value_is_from_and_what_it_means(tmp_path: Path) -> None:
    judges = ["town", {"hub": f"a/b@{COMMIT}", "sampling": {"temperature": 0.1}}]
    mine = extending(tmp_path, seed=8, models={"judge": judges})
    text = files.text(mine, mine.origins)
    lines = {line.strip().partition(":")[0]: line for line in text.splitlines()}
    assert lines["seed"] == "seed: 8 # mine.yaml: Seed of everything that is drawn."
    assert lines["tuning"].strip().startswith("tuning: 0.15 # sample.yaml: ")
    assert lines["near_duplicate_jaccard"].strip().partition("# ")[2].startswith("default: ")
    again = profiles.load(written(tmp_path / "again.yaml", text))
    assert again.players("judge") == mine.players("judge")
