"""The model card: what the manifest says, and nothing that it must not tell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from rlhi_dagster.training import model_card

MANIFEST: dict[str, Any] = {
    "model": {"name": "rlhi-dpo_rewrites", "revision": "c" * 64, "path": "."},
    "inputs": "i" * 32,
    "method": "dpo",
    "start": {"name": "acme/Tiny-1M", "revision": "d" * 40, "is_on_hub": True},
    "extra": {"persona": "own"},
    "settings": {"learning_rate": 0.0003, "beta": 0.1, "max_displacement": 0.2, "seed": 7},
    "effective_batch": 48,
    "world_size": 2,
    "steps": [{"step": step, "loss": 0.7 - step / 100, "rewards/accuracies": 0.5 + step / 100} for step in range(1, 31)],
    "evaluations": [],
    "chosen": {
        "step": 20,
        "of": 30,
        "why": "lowest held-out loss of those within the bounds",
        "snapshots": 3,
        "passed_over": [{"step": 30, "loss": 0.3, "displacement": 0.4, "memorisation": 0.1, "past": ["displacement"]}],
    },
    "validation": {"loss": 0.55, "rewards/accuracies": 0.75, "displacement": 0.125, "runtime": 3.0},
    "seconds": 61.0,
    "parameters": 1_107_216,
    "trained_rows": 787,
    "data": {
        "table": "preference_pairs",
        "data_version": "a" * 64,
        "rows_digest": "b" * 32,
        "pairs": 790,
        "validation_pairs": 79,
        "by_source": {"rewards": 400, "rewrites": 390},
        "users": 120,
        "code_version": "3",
        "conversations": "wildchat",
        "hub_dataset": "allenai/WildChat-1M",
        "is_simulated": False,
    },
    "code": {"version": "0.1.0", "commit": "e" * 40, "is_modified": True},
    "hardware": {"kind": "cuda", "name": "NVIDIA H100", "count": 2, "memory_gib": 79.6},
    "packages": {"python": "3.11.2", "torch": "2.13.0"},
    "pairs": 787,
    "validation_pairs": 79,
    "pairs_too_long": 3,
    "step0_loss": 0.693147,
    "masks": {"train": {"rows": 787, "tokens": 187_221, "loss_tokens": 33_261}},
}


def changed(**parts: Any) -> dict[str, Any]:
    made = copy.deepcopy(MANIFEST)
    for name, value in parts.items():
        made[name] = {**made[name], **value} if isinstance(value, dict) and isinstance(made[name], dict) else value
    return made


def header(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(model_card.card(manifest).split("---")[1]))


def test_the_header_is_what_the_hub_reads() -> None:
    assert header(MANIFEST) == {
        "base_model": "acme/Tiny-1M",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["allenai/WildChat-1M"],
        "tags": ["dpo", "trl", "rlhi", "persona"],
    }


def test_what_is_not_on_the_hub_is_not_named_as_if_it_were() -> None:
    found = header(changed(start={"is_on_hub": False}, data={"hub_dataset": None}, extra={"persona": "none"}))
    assert set(found) == {"library_name", "pipeline_tag", "tags"}
    assert "persona" not in found["tags"]


@pytest.mark.parametrize(
    "said",
    [
        "790 pairs of 120 users of `wildchat`",
        "3 were too long and left out",
        "| `rewards` | 400 |",
        "| `rewrites` | 390 |",
        "30 steps of 48 examples on 2 device(s) took 61 s on NVIDIA H100 (2 x cuda, 79.6 GiB)",
        "at commit `eeeeeeeeeeee` with changes",
        "asset version 3",
        "torch 2.13.0",
        "learning_rate: 0.0003",
        "| 1 | 0.690 | 0.510 |",
        "| 30 | 0.400 | 0.800 |",
        "Step 20 of 30, out of 3 snapshots: lowest held-out loss of those within the bounds.",
        "passed over: step 30 (displacement)",
        "| pair accuracy | 0.750 |",
        "Loss before the first step: 0.6931;",
        "33,261 of 187,221 tokens",
        "What is known about the user:",
        "No licence is given here",
    ],
)
def test_the_card_says(said: str) -> None:
    assert said in model_card.card(MANIFEST)


def test_the_example_shows_a_persona_only_where_one_was_shown_in_training() -> None:
    text = model_card.card(changed(extra={"persona": "none"}))
    assert '"role": "system"' not in text
    assert "give it no persona" in text


def test_simulated_users_are_said_to_be() -> None:
    assert "The users are simulated" not in model_card.card(MANIFEST)
    assert "The users are simulated" in model_card.card(changed(data={"is_simulated": True}))


def test_scores_are_shown_with_their_intervals() -> None:
    row = {
        "benchmark": "user_eval",
        "metric": "preferences_met",
        "value": 0.776,
        "n": 519,
        "ci_low": 0.753,
        "ci_high": None,
        "judge": "town",
    }
    assert "## Scores" not in model_card.card(MANIFEST)
    assert "| user_eval | preferences_met | 0.776 | [0.753, –] | 519 | town |" in model_card.card(MANIFEST, [row])


def test_the_town_policy_and_a_reward_model_have_cards_too() -> None:
    policy = changed(method="policy", start=None, data=None, extra={"layers": 4}) | {"data": {}, "validation": {}, "pairs_too_long": 0}
    assert "trained from scratch" in model_card.card(policy)
    assert "## Training data" not in model_card.card(policy)
    reward = model_card.card(changed(method="reward", extra={}) | {"extra": {}})
    assert "text-classification" in reward
    assert "How to load" not in reward
