"""``rlhi.score``: both sides of pairs under their persona, as the reward engine scores them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from transformers import LlamaForSequenceClassification

import rlhi_dagster as rlhi
from rlhi_dagster.engines.base import RewardRequest
from rlhi_dagster.engines.loading import reward_engine
from rlhi_dagster.engines.settings import engine_settings
from rlhi_dagster.engines.sources import folder_ref
from rlhi_dagster.personas.conditioning import with_persona

ON_CPU = engine_settings({"kind": "transformers", "device": "cpu", "dtype": "float32", "batch_size": 2, "chunk_size": 4})
PROMPT = [{"role": "user", "content": "What is it?"}]
PAIRS = pl.DataFrame(
    {
        "pair_id": ["a", "b"],
        "persona": ["- Prefers short answers.", ""],
        "prompt": [PROMPT, PROMPT],
        "chosen": ["It is short.", "It is."],
        "rejected": ["It is long and it goes on.", "It is not."],
    }
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "model"
    texts = ["What is it? It is short.", "Prefers short answers."]
    save_tiny_llama(folder, texts, LlamaForSequenceClassification, max_position_embeddings=160, initializer_range=0.4, num_labels=1)
    return folder


def test_both_sides_are_scored_under_the_persona_of_the_pair(model: Path) -> None:
    found = rlhi.score(PAIRS, model, engine=ON_CPU)
    assert found.drop("chosen_reward", "rejected_reward").equals(PAIRS)
    wanted = {
        "chosen": [*with_persona(PROMPT, "- Prefers short answers."), {"role": "assistant", "content": "It is short."}],
        "plain": [*PROMPT, {"role": "assistant", "content": "It is."}],
    }
    engine = reward_engine(folder_ref(model), ON_CPU)
    known = dict(pair for answered in engine.score((key, RewardRequest(messages)) for key, messages in wanted.items()) for pair in answered)
    assert found["chosen_reward"].to_list() == pytest.approx([known["chosen"].reward, known["plain"].reward], abs=1e-5)
    assert found["chosen_reward"][0] != found["rejected_reward"][0]


def test_frames_of_pandas_come_back_as_such(model: Path) -> None:
    ours = rlhi.score(PAIRS, model, engine=ON_CPU)["rejected_reward"].to_list()
    assert rlhi.score(PAIRS.to_pandas(), str(model), engine=ON_CPU)["rejected_reward"].tolist() == pytest.approx(ours, abs=1e-6)


def test_without_an_engine_the_device_at_hand_is_taken(model: Path) -> None:
    exact = rlhi.score(PAIRS, model, engine=ON_CPU)
    found = rlhi.score(PAIRS, model)
    assert found["chosen_reward"].to_list() == pytest.approx(exact["chosen_reward"].to_list(), abs=0.1)


def test_what_cannot_be_scored_gets_a_sentence(model: Path) -> None:
    with pytest.raises(ValueError, match=r"pairs lack the column\(s\) chosen, prompt"):
        rlhi.score(PAIRS.drop("chosen", "prompt"), model)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        rlhi.score(PAIRS, Path("nowhere"))
