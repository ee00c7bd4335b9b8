"""The vLLM chat engine, run for real on the town's policy (``make test-vllm``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.engines.transformers import TransformersChatEngine
from tests.conformance import Conformance, Subject, ask, said
from tests.vllm.conftest import CONTEXT

if TYPE_CHECKING:
    from rlhi_dagster.engines.vllm import VllmChatEngine

TEXTS = ["How do I cook rice?", "I want to get better at dancing. How?", "Plant tulips in spring!"]
WARM = Sampling(0.6, 0.9, 24, 7)
GREEDY = Sampling(0.0, 1.0, 24, 7)


@pytest.fixture(scope="module")
def engine(town: ModelRef, start_vllm: Callable[..., Iterator[VllmChatEngine]]) -> Iterator[VllmChatEngine]:
    yield from start_vllm(town)


@pytest.fixture(scope="module")
def tested(engine: VllmChatEngine, town: ModelRef, town_reference: TransformersChatEngine) -> Subject:
    return Subject(
        engine,
        town,
        town_reference.tokenizer,
        CONTEXT,
        TEXTS,
        said("Say nothing.").messages,
        most_in_hand=51,  # half a chunk, and the one that is being handed over
        reference=town_reference,
    )


class TestVllmChatEngine(Conformance):
    """In process."""


def test_choices_are_those_of_transformers(engine: VllmChatEngine, town_reference: TransformersChatEngine) -> None:
    options = [("B", "A"), tuple(ascii_uppercase), ("yes, please", "no")]
    questions = [said(text * repeats, choices=choices) for text in TEXTS for repeats in (1, 2, 3) for choices in options]
    for sampling in (GREEDY, Sampling(1.0, 0.9, 12, 7)):
        pairs = zip(ask(engine, questions, sampling), ask(town_reference, questions, sampling), strict=True)
        for answer, beside in pairs:
            assert (answer.text, answer.completion_tokens) == (beside.text, 1)
            assert answer.probabilities == pytest.approx(beside.probabilities, abs=1e-3)


def test_choices_that_cannot_be_told_apart_are_refused(engine: VllmChatEngine) -> None:
    with pytest.raises(ValueError, match="must begin with different tokens: tulips, tulips in spring"):
        ask(engine, [said("hi"), said("hi", choices=("tulips", "tulips in spring"))], GREEDY)
    assert ask(engine, [said("hi")], GREEDY)[0].error is None


def test_samples_are_those_of_one_request_with_n(engine: VllmChatEngine, town: ModelRef) -> None:
    from vllm import SamplingParams, TokensPrompt

    hot = Sampling(1.5, 0.9, 24, 7)
    request = said(TEXTS[0])
    apart = ask(engine, [said(TEXTS[0], index) for index in range(8)], hot)
    ids = engine.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    params = SamplingParams(n=8, temperature=1.5, top_p=0.9, max_tokens=24, seed=request.seed(town, hot))
    [group] = engine.llm.generate([TokensPrompt(prompt_token_ids=ids)], params, use_tqdm=False)
    expected = [engine.tokenizer.decode(output.token_ids, skip_special_tokens=True) for output in group.outputs]
    assert [answer.text for answer in apart] == expected
    assert len(set(expected)) > 4


def test_a_prompt_is_rendered_once_for_its_samples_and_read_from_the_cache(engine: VllmChatEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered, render = [], engine.tokenizer.apply_chat_template

    def count(messages: Any, **how: Any) -> Any:
        rendered.append(messages)
        return render(messages, **how)

    monkeypatch.setattr(engine.tokenizer, "apply_chat_template", count)
    long = [said(f"{text} Tell me more. " * 20, index) for text in TEXTS for index in range(16)]
    answers = ask(engine, long, WARM)
    assert len(rendered) == len(TEXTS)
    assert min(answer.prompt_tokens for answer in answers) > 128  # one block of the cache on a CPU
    assert [answer.cached_tokens > 0 for answer in answers].count(False) <= len(TEXTS)
    assert all(answer.cached_tokens < answer.prompt_tokens for answer in answers)


def test_the_engine_is_never_short_of_requests_while_there_are_calls(engine: VllmChatEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, wanted, left = engine.llm.llm_engine, 300, [300]
    in_hand: list[int] = []
    step = inner.step

    def watched() -> Any:
        if left[0]:
            in_hand.append(inner.get_num_unfinished_requests())
        return step()

    def calls() -> Iterator[tuple[str, ChatRequest]]:
        for number in range(wanted):
            left[0] -= 1
            yield str(number), said(TEXTS[number % 3], number)

    monkeypatch.setattr(inner, "step", watched)
    batches = list(engine.answer(calls(), WARM))
    assert set(in_hand) == {50}
    assert len(batches) > 20  # they come as they finish
    assert sum(map(len, batches)) == wanted


def test_whoever_stops_listening_leaves_an_idle_engine(engine: VllmChatEngine) -> None:
    calls = ((str(number), said(TEXTS[0], number)) for number in range(200))
    answers = engine.answer(calls, WARM)
    assert sum(map(len, islice(answers, 2))) < 200
    answers.close()
    assert not engine.llm.llm_engine.has_unfinished_requests()
    assert ask(engine, [said(TEXTS[0])], WARM)[0].error is None


SCRIPT = Path(__file__).with_name("stoppable.py")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_let_the_requests_in_hand_finish(town: ModelRef, tmp_path: Path, number: signal.Signals) -> None:
    """SIGINT goes to the whole process group, as Ctrl-C does; SIGTERM to the worker, as Dagster's does."""
    worker = subprocess.Popen([sys.executable, SCRIPT, str(town.path), tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert worker.stdout
    assert any(line == "busy\n" for line in worker.stdout)
    os.killpg(worker.pid, number) if number is signal.SIGINT else worker.send_signal(number)
    report = next(line for line in worker.stdout if line.startswith("{"))  # among vLLM's own lines
    worker.stdout.read()
    assert worker.wait(60) == 0
    told = json.loads(report)
    assert "StoppedError" in told["error"]
    stored = pl.concat([pl.read_parquet(file) for file in tmp_path.rglob("segment-*.parquet")])
    assert 0 < told["handed_out"] < told["wanted"]
    assert stored["key"].n_unique() == len(stored) == told["handed_out"]
    assert stored["error"].null_count() == len(stored)


def test_heads_that_vllm_cannot_run_are_named(tmp_path: Path, save_tiny_llama: Callable[..., None]) -> None:
    from rlhi_dagster.engines.vllm_streaming import EngineStartError

    save_tiny_llama(tmp_path, TEXTS, max_position_embeddings=CONTEXT, head_dim=36)
    with pytest.raises(EngineStartError, match=r"heads of size 36; on a CPU vLLM takes 32, 64.*use transformers"):
        chat_engine(ModelRef("tiny", "r1", str(tmp_path)), VllmSettings(dtype="float32", chunk_size=10, max_context_tokens=CONTEXT))


def test_too_little_memory_is_named(tmp_path: Path, save_tiny_llama: Callable[..., None]) -> None:
    from rlhi_dagster.engines.vllm_streaming import EngineStartError

    save_tiny_llama(tmp_path, TEXTS, max_position_embeddings=300_000, head_dim=256)  # its cache wants 4 KiB a token
    with pytest.raises(EngineStartError, match=r"vLLM did not start with tiny@r1.*lower max_context_tokens \(300000\)"):
        chat_engine(ModelRef("tiny", "r1", str(tmp_path)), VllmSettings(dtype="float32", chunk_size=10, max_context_tokens=300_000))
