"""The vLLM engine, run for real, says what the transformers engine says; needs an environment of its own (``make test-vllm``)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("vllm")

from rlhi_dagster.engines.base import ChatAnswer, ChatEngine, ChatRequest, Sampling
from rlhi_dagster.engines.loading import TransformersSettings, VllmSettings, chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.transformers import TransformersChatEngine

if TYPE_CHECKING:
    from rlhi_dagster.engines.vllm import VllmChatEngine

CONTEXT = 160
GREEDY = Sampling(0.0, 1.0, 24, 7)
TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
UNICODE = ["Señor, ¿cómo está?", "你好，世界", "🙂🧑‍🚀 e\u0301\u200b", "<|end|> tulips"]
LETTERS = ("A", "B", "C")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> ModelRef:
    """Wide initial weights, so that what it says depends on what it reads; vLLM's attention on a CPU knows no smaller heads."""
    folder = tmp_path_factory.mktemp("chat")
    save_tiny_llama(folder, TEXTS, max_position_embeddings=CONTEXT, initializer_range=0.4, head_dim=32)
    return ModelRef("tiny", "r1", str(folder))


@pytest.fixture(scope="module")
def reference(model: ModelRef) -> TransformersChatEngine:
    return TransformersChatEngine(model, TransformersSettings(device="cpu", dtype="float32", batch_size=8, chunk_size=1000))


@pytest.fixture(scope="module")
def engine(model: ModelRef) -> Iterator[VllmChatEngine]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB; else it reserves a share of the machine's memory
    settings = VllmSettings(dtype="float32", chunk_size=1000, max_context_tokens=CONTEXT)
    engine: Any = chat_engine(model, settings)
    yield engine
    engine.llm.llm_engine.engine_core.shutdown()


def said(text: str, sample_index: int = 0, choices: tuple[str, ...] = ()) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, choices)


def ask(engine: ChatEngine, model: ModelRef, requests: list[ChatRequest], sampling: Sampling = GREEDY) -> list[ChatAnswer]:
    found = dict(chain.from_iterable(engine.answer(((str(number), each) for number, each in enumerate(requests)), sampling)))
    return [found[str(number)] for number in range(len(requests))]


def test_greedy_replies_are_those_of_transformers(engine: VllmChatEngine, reference: TransformersChatEngine, model: ModelRef) -> None:
    requests = [said(text * repeats) for text in TEXTS + UNICODE for repeats in (1, 2, 3)]
    answers = ask(engine, model, requests)
    assert answers == ask(reference, model, requests)
    assert Counter(answer.finish_reason for answer in answers).keys() == {"length", "stop"}
    assert any(str(answer.text).endswith("\ufffd") for answer in answers)  # a character that the limit has cut


def test_the_chat_template_is_applied_once(
    engine: VllmChatEngine, reference: TransformersChatEngine, model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, read = engine.llm.generate, []

    def record(*args, **kwargs):
        outputs = generate(*args, **kwargs)
        read.extend(output.prompt_token_ids for output in outputs)
        return outputs

    monkeypatch.setattr(engine.llm, "generate", record)
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), TEXTS, strict=True)]
    [answer] = ask(engine, model, [ChatRequest(messages)])
    expected = reference.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert read == [expected]
    assert expected.count(reference.tokenizer.bos_token_id) == 1
    assert answer.prompt_tokens == len(expected)


def test_the_stop_token_ends_a_reply_and_the_limit_cuts_it(engine: VllmChatEngine, model: ModelRef) -> None:
    answers = ask(engine, model, [said(TEXTS[0], index) for index in range(60)], Sampling(2.0, 1.0, 100, 7))
    tokens = {reason: {answer.completion_tokens for answer in answers if answer.finish_reason == reason} for reason in ("stop", "length")}
    assert tokens["length"] == {100}
    assert min(tokens["stop"]) < 100
    assert not any("<|" in str(answer.text) for answer in answers)


def test_an_answer_does_not_depend_on_its_batch(engine: VllmChatEngine, model: ModelRef) -> None:
    requests = [said(TEXTS[index % 3] * 8, index) for index in range(80)]
    sampling = Sampling(1.0, 0.9, 8, 7)
    together = ask(engine, model, requests, sampling)
    assert sum(answer.prompt_tokens for answer in together) > 4096, "one step would read all prompts"
    assert ask(engine, model, requests[::-1], sampling)[::-1] == together
    assert [ask(engine, model, [request], sampling)[0] for request in requests[:5]] == together[:5]
    assert len({answer.text for answer in together}) > 70


def test_a_prompt_that_leaves_no_room_is_an_error_row_and_stops_nothing(
    engine: VllmChatEngine, reference: TransformersChatEngine, model: ModelRef
) -> None:
    requests = [said("hi"), said("tulips " * 200), said("tulips " * 200, choices=LETTERS), said("tulips")]
    answers = ask(engine, model, requests)
    assert answers == ask(reference, model, requests)
    assert [str(answer.error).split(":")[0] for answer in answers] == ["None", "prompt_too_long", "prompt_too_long", "None"]
    assert str(answers[2].error).endswith(f"+ 1 new tokens, context {CONTEXT}")


def test_the_room_for_the_reply_is_counted_exactly(engine: VllmChatEngine, model: ModelRef) -> None:
    prompt_tokens = ask(engine, model, [said("hi")])[0].prompt_tokens
    for new_tokens, is_error in ((CONTEXT - prompt_tokens, False), (CONTEXT - prompt_tokens + 1, True)):
        assert (ask(engine, model, [said("hi")], Sampling(0.0, 1.0, new_tokens, 7))[0].error is not None) is is_error
    lengths = {answer.prompt_tokens: answer for answer in ask(engine, model, [said("z" * n, choices=LETTERS) for n in range(160)])}
    assert (lengths[CONTEXT - 1].error, lengths[CONTEXT].text) == (None, None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_choices_and_requests_mix_and_are_those_of_transformers(
    engine: VllmChatEngine, reference: TransformersChatEngine, model: ModelRef, temperature: float
) -> None:
    sampling = Sampling(temperature, 0.9, 12, 7)
    options = [LETTERS, ("B", "A"), tuple(ascii_uppercase), ("yes, please", "no")]
    questions = [said(text, index, choices) for text in TEXTS + UNICODE for index, choices in enumerate(options * 3)]
    ordinary = [said(text) for text in TEXTS]
    answers = ask(engine, model, [*questions, *ordinary], sampling)
    chosen, replies = answers[: len(questions)], answers[len(questions) :]
    expected = ask(reference, model, questions, sampling)
    assert [replace(answer, probabilities=None) for answer in chosen] == [replace(answer, probabilities=None) for answer in expected]
    for answer, beside in zip(chosen, expected, strict=True):
        assert answer.probabilities == (None if beside.probabilities is None else pytest.approx(beside.probabilities, abs=1e-3))
    assert {(answer.error, answer.finish_reason, answer.completion_tokens) for answer in chosen} == {(None, "stop", 1)}
    assert all(answer.text in question.choices for answer, question in zip(chosen, questions, strict=True))
    assert len({answer.text for answer in chosen}) > 8
    assert replies == ask(engine, model, ordinary, sampling)


def test_choices_that_cannot_be_told_apart_are_refused(engine: VllmChatEngine, model: ModelRef) -> None:
    with pytest.raises(ValueError, match="must begin with different tokens: tulips, tulips in spring"):
        ask(engine, model, [said("hi", choices=("tulips", "tulips in spring"))])
    assert ask(engine, model, [said("hi")])[0].error is None


def test_no_request_is_no_work(engine: VllmChatEngine) -> None:
    assert list(engine.answer(iter([]), GREEDY)) == []
