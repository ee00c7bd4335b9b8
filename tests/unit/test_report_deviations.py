"""Where a run departs from the paper: what the report says of each profile, and of each setting that can be otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from rlhi_dagster import profiles
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import recipes

EVERYWHERE = (
    "reward model sees the persona",
    "the paper used GPT-4o",
    "paper's judges are closed",
    "many pairs for every recipe but `dpo_reasoning`",
    "on held-out users is kept",
)
SAMPLE_ONLY = (
    "those of town",
    "The policy is `town-policy`",
    "town's grammar tells",
    "logged reply is the rejected side",
    "goes on after the feedback",
    "16 candidates",
    "3 pairs a request",
    "reward model is trained here",
    "At most 400 erroneous",
    "DPO: a likelihood term on the chosen reply, of weight 1,",
    "DPO on pairs by reward: a likelihood term on the chosen reply, of weight 2,",
    "DPO: 2 passes",
    "simulated users' own preferences",
    "24 sums stand in",
)
NOT_IN_PAPER = (
    "a trained classifier; the paper",
    "No reward model filters",
    "extracted by rule",
    "A template points",
    "candidates a request",
    "first requests of users",
)
PAPER_ONLY = (
    "where it is less than 70 % sure, from `Qwen/Qwen3-32B`",
    "lines that `Qwen/Qwen3-32B` keeps up to date",
    "`Qwen/Qwen3-32B` tells whether the criticism fits",
    "A rewrite is kept if its reward is not below the original's",
    "reward model is `Skywork/Skywork-Reward-V2-Llama-3.1-8B`",
    "judge is `Qwen/Qwen3-32B`",
)


def said(profile: Profile) -> str:
    return "\n".join([*profile.deviations(), *recipes.deviations(recipes.load_all(), profile.max_pairs)])


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("sample", (*SAMPLE_ONLY, *NOT_IN_PAPER, "A template points", "900 at most"), (*PAPER_ONLY, "is dropped")),
        (
            "laptop",
            (
                *NOT_IN_PAPER,
                "8 candidates a request",
                "`HuggingFaceTB/SmolLM2-360M-Instruct`",
                "learning rate 5e-06 instead of 7e-07",
                "is dropped",
            ),
            (*SAMPLE_ONLY, *PAPER_ONLY, "DPO on pairs by reward"),
        ),
        (
            "paper",
            (*PAPER_ONLY, "the pair is dropped", "DPO: one pass"),
            (
                *SAMPLE_ONLY,
                *NOT_IN_PAPER,
                "those of",
                "The policy is",
                "erroneous",
                "instead of",
                "differ in reward",
                "at most",
                "sampled at",
            ),
        ),
    ],
)
def test_a_profile_says_what_is_true_of_it_and_nothing_else(name: str, there: tuple[str, ...], absent: tuple[str, ...]) -> None:
    found = said(profiles.load(name))
    assert [text for text in (*EVERYWHERE, *there) if text not in found] == []
    assert [text for text in absent if text in found] == []


SMOL = {"hub": f"HuggingFaceTB/SmolLM2-360M-Instruct@{'a' * 40}"}
SIMULATED = {"truth": "data/sample/truth", "source": {"location": "data/sample/wildchat*.parquet"}}


LOCAL = {"kind": "transformers", "device": "cpu", "dtype": "float32", "batch_size": 1, "chunk_size": 1}


@pytest.mark.parametrize(
    ("changes", "gone", "instead"),
    [
        ({"source": {"location": "logs.jsonl", "name": "mine"}}, "", "those of mine; the paper's are all of WildChat-1M"),
        ({"source": {"drop_toxic": False}}, "toxic", ""),
        ({"models": {"labeller": "classifier"}}, "Qwen3-32B`; the paper used", "come from a trained classifier; the paper"),
        ({"labeller": {"sure": 1.0}}, "trained classifier", "labels come from `Qwen/Qwen3-32B`; the paper used GPT-4o"),
        ({"models": {"persona_writer": "extractive"}}, "keeps up to date", "extracted by rule"),
        ({"sampling": {"temperature": 0.0}}, "", "temperature 0 and top-p 0.9 instead of 0.6 and 0.9"),
        ({"models": {"policy": SMOL}}, "", "The policy is `HuggingFaceTB/SmolLM2-360M-Instruct`"),
        ({"models": {"pair_judge": "rule"}}, "`Qwen/Qwen3-32B` tells", "a rule tells whether the criticism fits"),
        ({"rewrites": {"inapplicable": "keep"}}, "is dropped", "the pair stays; the paper does not say"),
        ({"rewrites": {"form": "dialogue"}}, "", "how the policy goes on after the feedback"),
        ({"rewrites": {"filters": {}}}, "A rewrite is kept", "No reward model filters the rewrites"),
        (
            {"rewrites": {"filters": {"min_reward_margin": 0.5, "min_reward": -1}}},
            "not below",
            "at least -1 and at least 0.5 over the original's",
        ),
        ({"candidates": {"count": 8}}, "", "8 candidates a request instead of 64"),
        ({"candidates": {"max_requests": 9}}, "", "first requests at most 9 a month, not for every one"),
        ({"candidates": {"with_persona_only": True}}, "", "first requests of users of whom something is known, not"),
        ({"candidates": {"pairs_per_request": 2}}, "", "2 pairs a request"),
        ({"candidates": {"min_margin": 0.5}}, "", "by at least 0.5; the paper names no bound"),
        ({"candidates": {"length_penalty": 0.5}}, "", "lowered by 0.5 per 1,000 characters"),
        ({"models": {"reward": {"hub": f"Nexusflow/Athene-RM-8B@{'a' * 40}", "engine": LOCAL}}}, "Athene-RM-8B", ""),
        ({"models": {"reward": "trained"}, "reward": {"training": {}}}, "Skywork", "reward model is trained here"),
        ({"reasoning": {"errors": 7}}, "", "At most 7 erroneous solutions instead of 10,000"),
        ({"reasoning": {"prm800k": "data/sample/prm800k.jsonl"}}, "", "simulated sums"),
        ({"models": {"simulated_user": "template"}}, "", "A template points at the wrong step"),
        ({"dpo": {"beta": 0.5, "max_length": 512}}, "", "DPO: beta 0.5 instead of 0.1, max length 512 instead of 8192."),
        ({"dpo": {"epochs": 3}}, "one pass", "DPO: 3 passes over the pairs"),
        ({"dpo": {"lora": {"rank": 4}}}, "", "low-rank adapters of rank 4"),
        ({"dpo": {"sft_weight": 0.3}}, "", "of weight 0.3, beside the loss; the paper has none"),
        ({"dpo_on_rewards": {"beta": 0.2}}, "", "DPO on pairs by reward: beta 0.2 instead of 0.1"),
        ({"models": {"judge": SMOL}}, "The judge is `Qwen", "The judge is `HuggingFaceTB/SmolLM2-360M-Instruct`"),
        ({"models": {"judge": [SMOL, "town"]}, **SIMULATED}, "The judge is `Qwen", "simulated users' own preferences"),
        ({"evaluation": {"arithmetic_problems": 5}}, "MMLU-Pro).", "MMLU-Pro); 5 sums stand in"),
        ({"max_pairs": 50}, "", "50 at most, so that arms differ"),
    ],
)
def test_a_changed_setting_changes_its_sentence(changes: dict[str, Any], gone: str, instead: str) -> None:
    paper = profiles.load("paper")
    settings = paper.model_dump()
    for section, given in changes.items():
        settings[section] = {**(settings[section] or {}), **given} if isinstance(given, dict) else given
    before, after = said(paper), said(Profile(**settings))
    assert gone in before
    assert instead in after
    assert instead == "" or instead not in before
    assert gone == "" or gone not in after


def test_a_folder_is_called_by_its_name(tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    paper = profiles.load("paper").model_dump()
    found = Profile(**paper | {"models": paper["models"] | {"policy": {"folder": str(tmp_path / "mine")}}})
    assert "The policy is `mine`;" in said(found)


def test_every_pair_of_every_recipe_counts_as_many_unless_one_says_not_to() -> None:
    arms = {name: recipe for name, recipe in recipes.load_all().items() if recipe.pairs == "equal"}
    assert "for every recipe, so that" in recipes.deviations(arms, None)[0]
