"""The transformers engines on a tiny random Llama: sampling that depends on the request alone, limits, rewards."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling
from rlhi_dagster.engines.loading import TransformersSettings
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.rewards import TransformersRewardEngine
from rlhi_dagster.engines.transformers import TransformersChatEngine

CONTEXT = 160
SAMPLING = Sampling(0.6, 0.9, 24, 7)
TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]


SaveTinyLlama = Callable[..., None]


def _saved(save: SaveTinyLlama, folder: Path, kind: type[LlamaForCausalLM] | type[LlamaForSequenceClassification]) -> ModelRef:
    """A random model; wide initial weights, so that what it says depends on what it reads."""
    save(folder, TEXTS, kind, max_position_embeddings=CONTEXT, initializer_range=0.4, num_labels=1)
    return ModelRef("tiny", "r1", str(folder))


def settings(batch_size: int = 8) -> TransformersSettings:
    return TransformersSettings(device="cpu", dtype="float32", batch_size=batch_size, chunk_size=1000)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: SaveTinyLlama) -> ModelRef:
    return _saved(save_tiny_llama, tmp_path_factory.mktemp("chat"), LlamaForCausalLM)


@pytest.fixture(scope="module")
def chat(chat_model: ModelRef) -> TransformersChatEngine:
    return TransformersChatEngine(chat_model, settings())


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: SaveTinyLlama) -> TransformersRewardEngine:
    model = _saved(save_tiny_llama, tmp_path_factory.mktemp("reward"), LlamaForSequenceClassification)
    return TransformersRewardEngine(model, settings())


def said(text: str, sample_index: int = 0) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index)


def ask(engine: TransformersChatEngine, model: ModelRef, requests: list[ChatRequest], sampling: Sampling = SAMPLING) -> list[ChatAnswer]:
    calls = enumerate(requests)
    found = dict(chain.from_iterable(engine.answer(((str(number), request) for number, request in calls), sampling)))
    return [found[str(number)] for number in range(len(requests))]


def rewards(engine: TransformersRewardEngine, requests: list[RewardRequest]) -> list[RewardAnswer]:
    found = dict(chain.from_iterable(engine.score((str(number), request) for number, request in enumerate(requests))))
    return [found[str(number)] for number in range(len(requests))]


def test_an_answer_does_not_depend_on_its_batch(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    requests = [said(text * repeats, index) for text in TEXTS for repeats in (1, 3) for index in range(3)]
    together = ask(chat, chat_model, requests)
    assert ask(chat, chat_model, requests) == together
    assert ask(chat, chat_model, requests[::-1])[::-1] == together
    assert [ask(chat, chat_model, [request])[0] for request in requests] == together
    assert len({answer.text for answer in together}) > 10


def test_two_batch_sizes_say_the_same(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    requests = [said(TEXTS[index % 3] * (1 + index % 2), index) for index in range(9)]
    assert ask(TransformersChatEngine(chat_model, settings(batch_size=2)), chat_model, requests) == ask(chat, chat_model, requests)


def test_samples_and_seeds_differ_at_a_high_temperature(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    hot = Sampling(2.0, 1.0, 24, 7)
    samples = ask(chat, chat_model, [said(TEXTS[0], index) for index in range(8)], hot)
    assert len({answer.text for answer in samples}) == 8
    other = ask(chat, chat_model, [said(TEXTS[0], index) for index in range(8)], Sampling(2.0, 1.0, 24, 8))
    assert all(one.text != two.text for one, two in zip(samples, other, strict=True))


def test_samples_follow_the_models_distribution(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    sampling = Sampling(1.0, 1.0, 1, 7)
    ids = chat.tokenizer.apply_chat_template(said(TEXTS[0]).messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.inference_mode():
        expected = chat.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    words = [chat.tokenizer.decode([token], skip_special_tokens=True) for token in range(len(chat.tokenizer))]
    answers = ask(chat, chat_model, [said(TEXTS[0], index) for index in range(600)], sampling)
    top = int(expected.argmax())
    share = sum(answer.text == words[top] for answer in answers) / len(answers)
    same_text = sum(float(expected[token]) for token, word in enumerate(words) if word == words[top])
    assert same_text < 0.95
    assert share == pytest.approx(same_text, abs=0.07)


def test_top_p_cuts_the_tail(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    narrow = ask(chat, chat_model, [said(TEXTS[0], index) for index in range(12)], Sampling(2.0, 1e-6, 12, 7))
    assert {answer.text for answer in narrow} == {ask(chat, chat_model, [said(TEXTS[0])], Sampling(0.0, 1.0, 12, 7))[0].text}


def test_temperature_zero_is_the_likeliest_token_at_each_step(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    greedy = Sampling(0.0, 0.9, 12, 7)
    answers = ask(chat, chat_model, [said(TEXTS[1], index) for index in range(3)], greedy)
    ids = chat.tokenizer.apply_chat_template(said(TEXTS[1]).messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        while (len(ids) - start < 12 and ids[-1] != chat.tokenizer.eos_token_id) or len(ids) == start:
            ids = [*ids, int(chat.model(torch.tensor([ids])).logits[0, -1].argmax())]
    assert {answer.text for answer in answers} == {chat.tokenizer.decode(ids[start:], skip_special_tokens=True)}
    assert answers[0].completion_tokens == len(ids) - start


def test_a_prompt_that_leaves_no_room_is_an_error_row_and_stops_nothing(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    fits, long = ask(chat, chat_model, [said("hi"), said("tulips " * 200)])
    assert (fits.error, long.text, long.completion_tokens) == (None, None, 0)
    assert str(long.error).startswith(f"prompt_too_long: {long.prompt_tokens} prompt + 24 new tokens, context {CONTEXT}")
    assert ask(chat, chat_model, [said("tulips " * 200)])[0] == long


def test_the_room_for_the_reply_is_counted_exactly(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    prompt_tokens = ask(chat, chat_model, [said("hi")])[0].prompt_tokens
    for new_tokens, is_error in ((CONTEXT - prompt_tokens, False), (CONTEXT - prompt_tokens + 1, True)):
        assert (ask(chat, chat_model, [said("hi")], Sampling(0.6, 0.9, new_tokens, 7))[0].error is not None) is is_error


def test_the_stop_token_ends_a_reply_and_the_limit_cuts_it(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    answers = ask(chat, chat_model, [said(TEXTS[0], index) for index in range(60)], Sampling(3.0, 1.0, 100, 7))
    reasons = {reason: [answer for answer in answers if answer.finish_reason == reason] for reason in ("stop", "length")}
    assert reasons["stop"]
    assert reasons["length"]
    assert len(reasons["stop"]) + len(reasons["length"]) == 60
    assert {answer.completion_tokens for answer in reasons["length"]} == {100}
    assert min(answer.completion_tokens for answer in reasons["stop"]) < 100
    assert not any("<|" in str(answer.text) for answer in answers)


LETTERS = ("A", "B", "C")


def choice(text: str, sample_index: int = 0, choices: tuple[str, ...] = LETTERS) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, choices)


def test_a_choice_is_the_likeliest_of_the_choices_with_their_probabilities(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    requests = [choice(text * repeats) for text in TEXTS for repeats in (1, 2, 3)]
    greedy = Sampling(0.0, 1.0, 24, 7)
    answers = ask(chat, chat_model, requests, greedy)
    assert [ask(chat, chat_model, [request], greedy)[0].text for request in requests] == [answer.text for answer in answers]
    tokens = [chat.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in LETTERS]
    for request, answer in zip(requests, answers, strict=True):
        prompt = chat.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        expected = chat.model(**prompt).logits[0, -1, tokens].detach().softmax(-1)
        assert answer.text == LETTERS[int(expected.argmax())]
        assert answer.probabilities == pytest.approx(expected.tolist(), abs=1e-4)
        assert (answer.error, answer.completion_tokens) == (None, 1)
    assert len({answer.text for answer in answers}) > 1


def test_choices_are_drawn_by_their_probability(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    answers = ask(chat, chat_model, [choice(TEXTS[0], index) for index in range(600)], Sampling(1.0, 1.0, 24, 7))
    for letter, probability in zip(LETTERS, answers[0].probabilities or [], strict=True):
        assert sum(answer.text == letter for answer in answers) / 600 == pytest.approx(probability, abs=0.06)


def test_questions_and_requests_mix_and_limits_hold_for_both(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    mixed = ask(chat, chat_model, [said("hi"), choice("hi"), choice("tulips " * 200), said("hi", 1)])
    assert mixed[0] == ask(chat, chat_model, [said("hi")])[0]
    assert (mixed[0].probabilities, mixed[1].text in LETTERS, mixed[2].text) == (None, True, None)
    assert str(mixed[2].error).endswith(f"+ 1 new tokens, context {CONTEXT}")


def test_choices_that_cannot_be_told_apart_are_refused(chat: TransformersChatEngine, chat_model: ModelRef) -> None:
    with pytest.raises(ValueError, match="must begin with different tokens: tulips, tulips in spring"):
        ask(chat, chat_model, [choice("hi", choices=("tulips", "tulips in spring"))])


def test_choices_are_part_of_the_key_and_their_absence_is_not(chat_model: ModelRef) -> None:
    assert said("hi").draw(chat_model, SAMPLING) != choice("hi").draw(chat_model, SAMPLING)
    assert choice("hi").draw(chat_model, SAMPLING) != choice("hi", choices=LETTERS[::-1]).draw(chat_model, SAMPLING)
    assert said("hi").draw(chat_model, SAMPLING) == "f8bf09e4350fb0313e8259990b0b7a94"


def test_no_request_is_no_work(chat: TransformersChatEngine, reward: TransformersRewardEngine) -> None:
    assert ask(chat, ModelRef("tiny", "r1"), []) == []
    assert rewards(reward, []) == []


def judged(request: str, reply: str) -> RewardRequest:
    return RewardRequest([{"role": "user", "content": request}, {"role": "assistant", "content": reply}])


def test_padding_does_not_change_a_reward(reward: TransformersRewardEngine) -> None:
    requests = [judged(text, "yes " * length) for text in TEXTS for length in (1, 5, 20)]
    together = [answer.reward for answer in rewards(reward, requests)]
    alone = [rewards(reward, [request])[0].reward for request in requests]
    assert together == pytest.approx(alone, abs=1e-5)
    assert [answer.reward for answer in rewards(reward, requests[::-1])][::-1] == pytest.approx(together, abs=1e-5)
    assert len({round(value, 3) for value in alone if value is not None}) == 9


def test_a_conversation_beyond_the_context_is_an_error_row(reward: TransformersRewardEngine) -> None:
    fits, long = rewards(reward, [judged("hi", "yes"), judged("hi", "tulips " * 200)])
    assert (fits.error, long.reward) == (None, None)
    assert long.error == f"conversation_too_long: {long.prompt_tokens} tokens, context {CONTEXT}"
