"""Profiles: the shipped ones load, a wrong one says what is wrong with it, and real logs need a secret."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from rlhi_dagster import profiles
from rlhi_dagster.profiles import Profile, ProfileError
from rlhi_dagster.training import recipes

SHIPPED = Path(profiles.__file__).parent
SAMPLE_LOGS = Path(__file__).parents[2] / "data/sample/wildchat.parquet"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RLHI_PROFILE", "RLHI_SOURCE", "RLHI_SALT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))


def changed(tmp_path: Path, **changes: Any) -> str:
    """A copy of the sample's profile; a change is ``section__setting=value``, ``None`` takes the setting out."""
    settings = yaml.safe_load((SHIPPED / "sample.yaml").read_text())
    for name, value in changes.items():
        *sections, last = name.split("__")
        inner = settings
        for section in sections:
            inner = inner[section]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def models(found: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """``found`` and every settings model inside it."""
    yield path, found
    for name, field in found.model_fields.items():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models(kind, f"{path}.{name}")


def test_the_shipped_profiles_are_known() -> None:
    assert profiles.available() == ["laptop", "paper", "sample", "town", "village", "village-small"]


@pytest.mark.parametrize("name", profiles.available())
def test_every_shipped_profile_loads_under_its_name(name: str) -> None:
    assert profiles.load(name).name == name


def test_the_papers_values() -> None:
    paper = profiles.load("paper")
    assert (paper.sampling.temperature, paper.sampling.top_p, paper.candidates.count, paper.reasoning.errors) == (0.6, 0.9, 64, 10_000)
    assert (paper.dpo.learning_rate, paper.dpo.beta, paper.dpo.batch_size, paper.dpo.sft_weight) == (7e-7, 0.1, 48, 0.0)


def test_every_setting_is_described() -> None:
    found = dict(models(Profile, "profile"))
    assert len(found) > 10
    bare = [f"{path}.{name}" for path, model in found.items() for name, field in model.model_fields.items() if not field.description]
    assert bare == []


def test_every_settings_model_refuses_unknown_settings() -> None:
    assert [path for path, model in models(Profile, "profile") if model.model_config.get("extra") != "forbid"] == []


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"RLHI_PROFILE=smaple: no such profile; there are laptop, paper, sample, town, village, "):
        profiles.load("smaple")
    with pytest.raises(ProfileError, match=r"nowhere\.yaml"):
        profiles.load("nowhere.yaml")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_pears": 3}, "max_pears"),
        ({"candidates__cuont": 3}, r"candidates\.cuont"),
        ({"dpo__beta": 0}, r"dpo\.beta"),
        ({"candidates__count": 1}, r"candidates\.count"),
        ({"held_out_fraction": 0.3}, r"held_out_fraction is no setting any more; write split: \{tuning: SHARE, test: SHARE\}"),
        ({"split__test": 0.9}, r"split: .*tuning 0\.15 and test 0\.9 leave no user to train on"),
        ({"split__tuning": 0, "evaluation__users": "tuning"}, r"evaluation\.users: tuning is nobody"),
        ({"first_month": "April"}, "first_month"),
        ({"engine__kind": "llamacpp"}, r"engine: .*kind"),
        ({"seed": None}, "seed"),
        ({"sampling__top_p": None}, r"sampling\.top_p"),
        ({"models__policy": "town"}, r"models\.policy: town is trained here and needs the section policy"),
        ({"models__judge": "chat"}, r"models\.judge: .*chat is neither a role nor a program"),
        ({"models__reward": {"hub": "a b"}}, r"models\.reward\.hub: .*'a b' is no model of the Hub"),
        ({"models__judge": None}, r"models\.judge: Field required"),
    ],
)
def test_a_wrong_setting_names_itself_and_the_file(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProfileError, match=rf"mine\.yaml: .*{named}"):
        profiles.load(changed(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "- a\n", "name: [\n"])
def test_a_file_that_is_no_mapping_names_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ProfileError, match=r"mine\.yaml"):
        profiles.load(str(tmp_path / "mine.yaml"))


def test_a_source_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"RLHI_SOURCE=.*nothing\*\.parquet"):
        profiles.load("sample", str(tmp_path / "nothing*.parquet"))


def test_another_source_takes_the_profiles_place_and_leaves_the_truth_behind() -> None:
    profile = profiles.load("sample", str(SAMPLE_LOGS))
    assert (profile.source.location, str(profile.source.kind), profile.truth) == (str(SAMPLE_LOGS), "wildchat", None)
    assert profile.source.name != profiles.load("sample").source.name


def test_each_source_and_profile_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    roots = [profiles.data_root()]
    monkeypatch.setenv("RLHI_PROFILE", "laptop")
    roots.append(profiles.data_root())
    for source in ("one/logs.parquet", "two/logs.parquet"):
        monkeypatch.setenv("RLHI_SOURCE", source)
        roots.append(profiles.data_root())
    assert len(set(roots)) == 4
    assert all(root.is_relative_to(tmp_path / "data") for root in roots)


@pytest.mark.parametrize("source", [None, "logs.parquet"])
def test_profiles_of_one_file_name_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | None) -> None:
    if source:
        monkeypatch.setenv("RLHI_SOURCE", source)
    files = [tmp_path / folder / name for folder in ("pa", "pb") for name in ("mine.yaml", "laptop.yaml", "sample.yml")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    roots = [profiles.data_root(os.environ | {"RLHI_PROFILE": str(file)}) for file in files]
    roots += [profiles.data_root(os.environ | {"RLHI_PROFILE": name}) for name in profiles.available()]
    assert len(set(roots)) == len(files) + len(profiles.available())
    laptop = roots[len(files)]
    assert laptop.name.startswith("laptop-logs-") if source else laptop == tmp_path / "data" / "profiles" / "laptop"


def test_a_profile_has_one_folder_however_its_path_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pa" / "mine.yaml"
    file.parent.mkdir()
    file.touch()
    monkeypatch.chdir(tmp_path)
    roots = {profiles.data_root(os.environ | {"RLHI_PROFILE": name}) for name in (str(file), "pa/mine.yaml", "./pa/../pa/mine.yaml")}
    assert len(roots) == 1
    assert re.fullmatch("mine-[0-9a-f]{6}", roots.pop().name)


@pytest.mark.parametrize("name", ["laptop", "paper"])
def test_real_logs_need_a_secret_salt(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ProfileError, match=rf"profile {name} needs RLHI_SALT"):
        profiles.salt(profiles.load(name))
    monkeypatch.setenv("RLHI_SALT", "")
    with pytest.raises(ProfileError, match="RLHI_SALT"):
        profiles.salt(profiles.load(name))
    monkeypatch.setenv("RLHI_SALT", secret := "9f2d41c07be8653a90d7e1f4b62c8a53")
    assert profiles.salt(profiles.load(name)) == secret


def test_the_town_has_a_public_salt() -> None:
    assert profiles.salt(profiles.load("sample")) == "the-town-is-public"


def test_other_logs_under_the_samples_profile_get_a_kept_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_SOURCE", str(SAMPLE_LOGS))
    profile = profiles.load("sample", str(SAMPLE_LOGS))
    drawn = profiles.salt(profile)
    assert drawn != "the-town-is-public"
    assert len(drawn) == 64
    assert profiles.salt(profile) == drawn
    assert stat.S_IMODE((profiles.data_root() / "salt").stat().st_mode) == 0o600


def test_an_empty_salt_file_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_SOURCE", str(SAMPLE_LOGS))
    profiles.data_root().mkdir(parents=True)
    (profiles.data_root() / "salt").touch()
    with contextlib.suppress(ProfileError):
        assert profiles.salt(profiles.load("sample", str(SAMPLE_LOGS)))


def test_reward_pairs_are_trained_on_by_their_own_settings_where_the_profile_has_some() -> None:
    sample, paper = profiles.load("sample"), profiles.load("paper")
    own = {name: sample.training_of(recipes.load(name)) for name in ("sft_rewrites", "dpo_rewrites", "dpo_rewards_user_agnostic")}
    assert own == {"sft_rewrites": sample.sft, "dpo_rewrites": sample.dpo, "dpo_rewards_user_agnostic": sample.dpo_on_rewards}
    assert paper.training_of(recipes.load("dpo_rewards")) == paper.dpo


def test_corpora_to_compare_with_need_names_of_their_own(tmp_path: Path) -> None:
    corpus = {"name": "pairs", "kind": "hh_rlhf", "location": "pairs.jsonl"}
    profile = profiles.load(changed(tmp_path, diversity_corpora=[corpus]))
    assert profiles.diversity_corpora(profile)[0].location == str(profiles.ROOT / "pairs.jsonl")
    with pytest.raises(ProfileError, match="different names"):
        profiles.load(changed(tmp_path, diversity_corpora=[corpus, corpus]))
    for shipped in ("laptop", "paper"):
        assert [each.name for each in profiles.load(shipped).diversity_corpora] == ["hh-rlhf", "helpsteer2"]
