"""The transformers engine on a tiny random Llama: sampling that depends on the request alone; limits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.transformers import TransformersChatEngine
from tests import conformance
from tests.conformance import LETTERS, Conformance, Subject, said

CONTEXT = 160
SAMPLING = Sampling(0.6, 0.9, 24, 7)
TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]


SaveTinyLlama = Callable[..., None]


def settings(batch_size: int = 8, chunk_size: int = 1000) -> TransformersSettings:
    return TransformersSettings(device="cpu", dtype="float32", batch_size=batch_size, chunk_size=chunk_size)


def _saved(save: SaveTinyLlama, folder: Path) -> ModelRef:
    """A random model; wide initial weights, so that what it says depends on what it reads."""
    save(folder, TEXTS, max_position_embeddings=CONTEXT, initializer_range=0.4)
    return ModelRef("tiny", "r1", str(folder))


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: SaveTinyLlama) -> ModelRef:
    return _saved(save_tiny_llama, tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def chat(chat_model: ModelRef) -> TransformersChatEngine:
    return TransformersChatEngine(chat_model, settings())


def ask(engine: TransformersChatEngine, requests: list[ChatRequest], sampling: Sampling = SAMPLING) -> list[ChatAnswer]:
    return conformance.ask(engine, requests, sampling)


SILENT = said("Say nothing.")


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: SaveTinyLlama) -> Subject:
    """A random model whose stop token is likeliest after one prompt: its row of the last layer is turned to that prompt's state."""
    model = _saved(save_tiny_llama, tmp_path_factory.mktemp("silent"))
    engine = TransformersChatEngine(model, settings(chunk_size=50))
    states = []
    for request in [SILENT, *(said(text) for text in TEXTS)]:
        prompt = engine.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        states.append(engine.model(**prompt, output_hidden_states=True).hidden_states[-1][0, -1].detach())
    others = torch.stack(states[1:], dim=1)
    only = states[0] - others @ torch.linalg.lstsq(others, states[0][:, None]).solution[:, 0]
    engine.model.lm_head.weight.data[engine.tokenizer.eos_token_id] = only * 12 / (only @ states[0])
    return Subject(engine, model, engine.tokenizer, CONTEXT, TEXTS, SILENT.messages, most_in_hand=50)


class TestTransformersChatEngine(Conformance):
    """On a random model."""


def test_a_template_that_refuses_a_conversation_makes_an_error_row(chat: TransformersChatEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat.tokenizer, "chat_template", "{% if messages[1:] %}{{ raise_exception('one at a time') }}{% endif %}hi")
    messages = [{"role": "user", "content": "tulips"}, {"role": "user", "content": "tulips"}]
    refused, answered = ask(chat, [ChatRequest(messages), said("tulips")])
    assert (refused.text, refused.error) == (None, "template_refused: TemplateError in the model's chat template")
    assert answered.error is None


def test_thoughts_are_no_reply(chat: TransformersChatEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat.tokenizer, "decode", lambda *_, **__: "<think>a</think> b")
    assert [(answer.text, answer.error) for answer in ask(chat, [said("hi")])] == [("b", None)]
    monkeypatch.setattr(chat.tokenizer, "decode", lambda _, **how: "a" if how else "<assistant>\n<think>\n")
    thinks, chooses = ask(chat, [said("hi"), choice("hi")], Sampling(0.6, 0.9, 1, 7))
    assert (thinks.text, thinks.is_retryable, chooses.error) == (None, False, None)
    assert str(thinks.error).startswith("only_thoughts: the reply is thoughts and nothing else")


def test_an_answer_does_not_depend_on_its_batch(chat: TransformersChatEngine) -> None:
    requests = [said(text * repeats, index) for text in TEXTS for repeats in (1, 3) for index in range(3)]
    together = ask(chat, requests)
    assert ask(chat, requests) == together
    assert ask(chat, requests[::-1])[::-1] == together
    assert [ask(chat, [request])[0] for request in requests] == together
    assert len({answer.text for answer in together}) > 10


def test_two_batch_sizes_say_the_same(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    requests = [said(TEXTS[index % 3] * (1 + index % 2), index) for index in range(9)]
    assert ask(TransformersChatEngine(chat_model, settings(batch_size=2)), requests) == ask(chat, requests)


def test_rows_that_go_on_without_those_that_ended_say_what_they_say_alone(chat_model: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = (TransformersChatEngine(chat_model, settings(batch_size)) for batch_size in (40, 1))
    for engine in (together, alone):
        engine.model.generation_config.eos_token_id = [engine.tokenizer.eos_token_id, *range(10, 300, 15)]
    passes: list[int] = []
    generate = together.model.generate
    monkeypatch.setattr(together.model, "generate", lambda rows, **given: passes.append(len(rows)) or generate(rows, **given))
    schema = '{"type": "object", "properties": {"likes": {"type": "string", "maxLength": 9}}, "required": ["likes"]}'
    requests = [ChatRequest(said(text).messages, index) for text in TEXTS for index in range(10)]
    requests += [ChatRequest(said(text).messages, json_schema=schema) for text in TEXTS]
    answers = ask(together, requests)
    assert answers == ask(alone, requests)
    assert len({answer.completion_tokens for answer in answers}) > 5
    assert passes[0] == 33
    assert len(passes) > 2
    assert all(later <= earlier / 2 for earlier, later in pairwise(passes))


def test_samples_follow_the_models_distribution(chat: TransformersChatEngine) -> None:
    sampling = Sampling(1.0, 1.0, 1, 7)
    ids = chat.tokenizer.apply_chat_template(said(TEXTS[0]).messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.inference_mode():
        expected = chat.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    words = [chat.tokenizer.decode([token], skip_special_tokens=True) for token in range(len(chat.tokenizer))]
    answers = ask(chat, [said(TEXTS[0], index) for index in range(600)], sampling)
    top = int(expected.argmax())
    share = sum(answer.text == words[top] for answer in answers) / len(answers)
    same_text = sum(float(expected[token]) for token, word in enumerate(words) if word == words[top])
    assert same_text < 0.95
    assert share == pytest.approx(same_text, abs=0.07)


def test_top_p_cuts_the_tail(chat: TransformersChatEngine) -> None:
    narrow = ask(chat, [said(TEXTS[0], index) for index in range(12)], Sampling(2.0, 1e-6, 12, 7))
    assert {answer.text for answer in narrow} == {ask(chat, [said(TEXTS[0])], Sampling(0.0, 1.0, 12, 7))[0].text}


def test_temperature_zero_is_the_likeliest_token_at_each_step(chat: TransformersChatEngine) -> None:
    greedy = Sampling(0.0, 0.9, 12, 7)
    answers = ask(chat, [said(TEXTS[1], index) for index in range(3)], greedy)
    ids = chat.tokenizer.apply_chat_template(said(TEXTS[1]).messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        while (len(ids) - start < 12 and ids[-1] != chat.tokenizer.eos_token_id) or len(ids) == start:
            ids = [*ids, int(chat.model(torch.tensor([ids])).logits[0, -1].argmax())]
    assert {answer.text for answer in answers} == {chat.tokenizer.decode(ids[start:], skip_special_tokens=True)}
    assert answers[0].completion_tokens == len(ids) - start


def choice(text: str, sample_index: int = 0, choices: tuple[str, ...] = LETTERS) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, choices)


def test_a_choice_is_the_likeliest_of_the_choices_with_their_probabilities(chat: TransformersChatEngine) -> None:
    requests = [choice(text * repeats) for text in TEXTS for repeats in (1, 2, 3)]
    greedy = Sampling(0.0, 1.0, 24, 7)
    answers = ask(chat, requests, greedy)
    assert [ask(chat, [request], greedy)[0].text for request in requests] == [answer.text for answer in answers]
    tokens = [chat.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in LETTERS]
    for request, answer in zip(requests, answers, strict=True):
        prompt = chat.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        expected = chat.model(**prompt).logits[0, -1, tokens].detach().softmax(-1)
        assert answer.text == LETTERS[int(expected.argmax())]
        assert answer.probabilities == pytest.approx(expected.tolist(), abs=1e-4)
        assert (answer.error, answer.completion_tokens) == (None, 1)
    assert len({answer.text for answer in answers}) > 1


def test_questions_and_requests_mix_and_limits_hold_for_both(chat: TransformersChatEngine) -> None:
    mixed = ask(chat, [said("hi"), choice("hi"), choice("tulips " * 200), said("hi", 1)])
    assert mixed[0] == ask(chat, [said("hi")])[0]
    assert (mixed[0].probabilities, mixed[1].text in LETTERS, mixed[2].text) == (None, True, None)
    assert str(mixed[2].error).endswith(f"+ 1 new tokens, context {CONTEXT}")


def test_choices_that_cannot_be_told_apart_are_refused(chat: TransformersChatEngine) -> None:
    with pytest.raises(ValueError, match="must begin with different tokens: tulips, tulips in spring"):
        ask(chat, [choice("hi", choices=("tulips", "tulips in spring"))])


def test_choices_are_part_of_the_key_and_their_absence_is_not(chat_model: ModelRef) -> None:
    assert said("hi").draw(chat_model, SAMPLING) != choice("hi").draw(chat_model, SAMPLING)
    assert choice("hi").draw(chat_model, SAMPLING) != choice("hi", choices=LETTERS[::-1]).draw(chat_model, SAMPLING)
    assert said("hi").draw(chat_model, SAMPLING) == "f8bf09e4350fb0313e8259990b0b7a94"
