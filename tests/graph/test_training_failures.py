"""What goes wrong before training is one sentence in the run, nothing is trained, and the run succeeds once the cause is gone."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import training as module
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import command
from rlhi_dagster.base.tables import FOLLOW_UP_EXAMPLES, PREFERENCE_PAIRS, THUMB_EXAMPLES
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.partitions import range_tags
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.training import artefacts
from tests.built import built, upstream
from tests.servers import Asked, Told, serving

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
DPO, SFT = "trial_dpo", "trial_sft"
"""Recipes of their own, and so neighbours among the partitions: one run covers both; the first one would be trained first."""
REFUSED = {"unknown": (401, "RepoNotFound"), "gated": (403, "GatedRepo"), "revision": (404, "RevisionNotFound")}
"""Models of a Hub, by how it refuses them: status and code."""


@dataclass
class World:
    """A lake with a policy and pairs, and two recipes over them."""

    root: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def lake(self) -> Lake:
        return Lake(root=str(self.root / "lake"))

    def recipe(self, name: str, **changed: Any) -> None:
        """Write a recipe, with other fields than the project's."""
        method = "dpo" if name == DPO else "sft"
        given: dict[str, Any] = {"description": "x", "method": method, "sources": ["rewrites"], "persona": "none", **changed}
        lines = [
            f"{field}: {str(value) if not isinstance(value, list) else '[' + ', '.join(value) + ']'}" for field, value in given.items()
        ]
        (self.root / "recipes" / f"{name}.yaml").write_text("\n".join(lines) + "\n")

    def policy(self, model: ModelRef | None = None) -> None:
        """Let the policy be another model than the tiny one."""
        own = self.root / "model"
        model = model or ModelRef("tiny", weights_digest(own), str(own))
        artefacts.refer(self.lake.artefact_path("policy"), model, "none")

    def run(self) -> dg.ExecuteInProcessResult:
        """Materialize the checkpoints of both recipes."""
        small = {"batch_size": 4, "micro_batch_size": 2, "max_length": 96, "bf16": False, "gradient_checkpointing": False, "processes": 1}

        sample = profiles.load("sample")
        settings = {name: getattr(sample, name).model_copy(update=small) for name in ("sft", "dpo", "dpo_on_rewards")}
        profile = sample.model_copy(update={**settings, "recipes": str(self.root / "recipes")})
        return dg.materialize(
            [
                *built(profile, module.checkpoints),
                *upstream(profile, "preference_pairs", "thumb_examples", "follow_up_examples", "policy", "online_policies", "online_pairs"),
            ],
            selection=dg.AssetSelection.assets("checkpoints"),
            tags=range_tags(DPO, SFT),
            resources={
                "io_manager": TableIOManager(root=self.lake.root),
                "settings": Settings(profile),
                "lake": self.lake,
                "workers": Workers(self.root),
            },
            raise_on_error=False,
        )

    def sentence(self) -> str:
        """What a run says that fails before it trains anything."""
        result = self.run()
        [failed] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
        data = failed.step_failure_data
        assert data.user_failure_data, data.error.to_string()
        folder = self.lake.artefact_path("checkpoints")
        assert not folder.exists() or not list(folder.iterdir())
        return data.user_failure_data.description


@pytest.fixture(scope="module", autouse=True)
def _hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Hub that refuses each model for a reason of its own: one environment for all tests, so that their workers have one parent."""

    async def refuse(asked: Asked) -> Told:
        status, code = next(reason for name, reason in REFUSED.items() if f"org/{name}" in asked.path)
        return Told(status, content=b"", headers={"X-Error-Code": code, "X-Error-Message": "no"})

    with serving(refuse) as address, pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patched.setenv("HF_ENDPOINT", address)
        yield


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny_llama: Callable[..., None]) -> World:
    made = World(tmp_path, monkeypatch)
    (tmp_path / "recipes").mkdir()
    save_tiny_llama(tmp_path / "model", TEXTS, max_position_embeddings=128)
    for name in (DPO, SFT):
        made.recipe(name)
    made.policy()
    made.lake.write("preference_pairs", pairs())
    made.lake.write("thumb_examples", THUMB_EXAMPLES.empty())
    made.lake.write("follow_up_examples", FOLLOW_UP_EXAMPLES.empty())
    return made


def pairs(**changed: Any) -> pl.DataFrame:
    rows = [
        {
            **dict.fromkeys(PREFERENCE_PAIRS.columns),
            "pair_id": f"p{number:02}",
            "source": "rewrites",
            "split": "validation" if number % 4 == 0 else "train",
            "is_kept": True,
            "drop_reasons": [],
            "user_id": f"u{number}",
            "prompt": [{"role": "user", "content": f"{TEXTS[number % 3]} {number}"}],
            "chosen": f"Sure. {TEXTS[(number + 1) % 3]}",
            "rejected": f"No {number}.",
            "persona": "",
            **changed,
        }
        for number in range(16)
    ]
    return pl.DataFrame(rows, schema=PREFERENCE_PAIRS.schema)


def test_a_recipe_with_a_typo(world: World) -> None:
    world.recipe(SFT, settings="{learning_rat: 1.0e-5}")
    assert world.sentence() == "recipe trial_sft.yaml: settings.learning_rat: Extra inputs are not permitted"


def test_a_batch_that_is_not_a_multiple(world: World) -> None:
    world.recipe(SFT, settings="{batch_size: 5}")
    told = world.sentence()
    assert told.startswith("recipe trial_sft.yaml: ")
    assert "batch_size 5 is not a multiple of micro_batch_size 2" in told


def test_no_source_has_pairs(world: World) -> None:
    for name in (DPO, SFT):
        world.recipe(name, sources=["rewards"])
    told = world.sentence()
    for name in (DPO, SFT):
        assert f"recipe {name}: no kept training pair of source rewards; see the drop reasons in reward_pairs and preference_pairs" in told


@pytest.mark.slow
def test_a_recipe_without_data_is_left_out_with_a_word_why_and_the_others_are_trained(world: World) -> None:
    world.recipe(SFT, sources=["rewards"])
    result = world.run()
    assert result.success
    manifests = {name: artefacts.manifest(world.lake.artefact_path("checkpoints", name)) or {} for name in (DPO, SFT)}
    assert {name: manifest["method"] for name, manifest in manifests.items()} == {DPO: "dpo", SFT: "no data"}
    assert manifests[SFT]["why"].startswith(f"recipe {SFT}: no kept training pair of source rewards")
    with pytest.raises(ValueError, match=f"{SFT} holds no model: recipe {SFT}: no kept training pair"):
        ModelRef.from_manifest(world.lake.artefact_path("checkpoints", SFT))


def test_a_policy_that_is_not_there(world: World) -> None:
    shutil.rmtree(world.lake.artefact_path("policy"))
    assert world.sentence().endswith(f"holds no finished model (manifest.json is missing); run: {command('policy')}")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unknown", "models.policy org/unknown is no model of the Hub, or a private one: correct it, or log in"),
        ("gated", "models.policy org/gated is a gated model: ask for access at https://huggingface.co/org/gated"),
        ("revision", "models.policy org/revision has no revision abc: write hub: org/revision@<commit of 40 digits>"),
    ],
)
def test_a_model_that_the_hub_does_not_give(world: World, name: str, told: str) -> None:
    world.policy(ModelRef(f"org/{name}", "abc"))
    assert world.sentence().startswith(told)


@pytest.mark.slow
def test_a_limit_over_the_context_of_one_recipe_stops_the_other_too_and_then_both_train(world: World) -> None:
    world.recipe(SFT, settings="{max_length: 4096}")
    assert world.sentence() == (
        "trial_sft: max_length 4,096 is over the context of tiny, 128 tokens: "
        "lower sft.max_length of the profile or settings.max_length of the recipe"
    )
    world.recipe(SFT)
    assert world.run().success
    assert {each.name for each in world.lake.artefact_path("checkpoints").glob("[!.]*")} == {DPO, SFT}


def test_pairs_that_are_all_too_long(world: World) -> None:
    world.recipe(DPO, settings="{max_length: 16}")
    told = world.sentence()
    assert told.startswith(f"{DPO}: no pair to train on, all 12 are longer than max_length 16 tokens (the shortest has ")
    assert told.endswith("raise max_length of dpo or dpo_on_rewards in the profile, or settings.max_length of the recipe")


def test_a_tokenizer_without_a_chat_template(world: World) -> None:
    (world.root / "model" / "chat_template.jinja").unlink()
    told = world.sentence()
    assert told.startswith(f"{DPO}: the tokenizer of tiny has no chat template")
    assert "set models.policy to a chat model, or put a chat_template.jinja into its folder" in told


def test_weights_that_are_not_there(world: World) -> None:
    for file in (world.root / "model").glob("*.safetensors"):
        file.unlink()
    assert world.sentence().startswith(f"the folder {world.root / 'model'} holds no model that can be loaded")


@pytest.mark.slow
def test_a_model_without_a_hub(world: World) -> None:
    world.policy(ModelRef("org/model", "abc"))
    world.monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert world.sentence().startswith("the Hub cannot be reached, and models.policy org/model at abc is not in its cache")


@pytest.mark.slow
def test_a_disk_with_too_little_room(world: World) -> None:
    hook = world.root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("import shutil\nshutil.disk_usage = lambda folder: type('Usage', (), {'free': 2**16})\n")
    world.monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), str(profiles.ROOT)]))
    told = world.sentence()
    assert told.startswith("training needs 0.")
    assert told.endswith("0.1 MiB are free: free space or set RLHI_DATA to another disk")
