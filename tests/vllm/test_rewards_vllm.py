"""The vLLM reward engine, run for real beside the transformers one on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

from rlhi_dagster.engines.base import RewardAnswer, RewardEngine, RewardRequest
from rlhi_dagster.engines.loading import reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import TransformersSettings
from tests.vllm.conftest import CONTEXT

if TYPE_CHECKING:
    from rlhi_dagster.engines.vllm_rewards import VllmRewardEngine

PROMPTS = [f"{opening} Think of a small kitchen and of little time. " * 12 for opening in ("I cook rice.", "I plant tulips.", "I dance.")]


@pytest.fixture(scope="module")
def model(town: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The town's policy with a random head."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(3)
    LlamaForSequenceClassification.from_pretrained(str(town.path), num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(town.path).save_pretrained(folder)
    return ModelRef("town-reward", "r1", str(folder))


@pytest.fixture(scope="module")
def engine(model: ModelRef, start_vllm: Callable[..., Iterator[VllmRewardEngine]]) -> Iterator[VllmRewardEngine]:
    yield from start_vllm(model, reward_engine)


@pytest.fixture(scope="module")
def reference(model: ModelRef) -> RewardEngine:
    return reward_engine(model, TransformersSettings(device="cpu", dtype="float32", batch_size=16, chunk_size=1000))


def judged(prompt: str, reply: str) -> RewardRequest:
    return RewardRequest([{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}])


def score(engine: RewardEngine, requests: list[RewardRequest]) -> list[RewardAnswer]:
    found = list(chain.from_iterable(engine.score((str(number), request) for number, request in enumerate(requests))))
    assert len(found) == len(requests) == len(dict(found))
    return [dict(found)[str(number)] for number in range(len(requests))]


def test_rewards_are_those_of_transformers(engine: VllmRewardEngine, reference: RewardEngine) -> None:
    requests = [judged(prompt[: 40 * length], "Rice! " * length) for prompt in PROMPTS for length in range(1, 12)]
    answers, expected = score(engine, requests), score(reference, requests)
    assert [answer.reward for answer in answers] == pytest.approx([answer.reward for answer in expected], abs=1e-3)
    assert [answer.prompt_tokens for answer in answers] == [answer.prompt_tokens for answer in expected]
    assert len({round(answer.reward or 0, 3) for answer in answers}) > 20
    assert any(abs(answer.reward or 0) > 1 or (answer.reward or 0) < 0 for answer in answers)  # no probabilities


def test_candidates_of_one_prompt_share_its_prefix(engine: VllmRewardEngine, reference: RewardEngine) -> None:
    requests = [judged(prompt, f"Candidate number {number}.") for prompt in PROMPTS for number in range(64)]
    answers = score(engine, requests)
    read = sum(answer.prompt_tokens for answer in answers)
    cached = sum(answer.cached_tokens for answer in answers)
    assert 0.4 * read < cached < read
    assert [answer.reward for answer in answers] == pytest.approx([answer.reward for answer in score(reference, requests)], abs=1e-3)


def test_a_conversation_beyond_the_context_is_an_error_row_and_stops_nothing(engine: VllmRewardEngine) -> None:
    fits, long, after = score(engine, [judged("hi", "yes"), judged("hi", "tulips " * CONTEXT), judged("hi", "no")])
    assert (fits.error, after.error, long.reward) == (None, None, None)
    assert long.error == f"conversation_too_long: {long.prompt_tokens} tokens, context {CONTEXT}"


def test_no_request_is_no_work(engine: VllmRewardEngine) -> None:
    assert list(engine.score(iter([]))) == []
