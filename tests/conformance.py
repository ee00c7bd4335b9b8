"""What every chat engine must do, as tests: subclass ``Conformance`` beside an engine's own tests and give it a fixture ``tested``.

Where the engines cannot agree, a field of ``Subject`` says so and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rlhi_dagster.engines.base import ChatAnswer, ChatEngine, ChatRequest, Messages, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.schemas import InvalidSchemaError

LETTERS = ("A", "B", "C")
UNICODE = ["Señor, ¿cómo está?", "你好，世界", "🙂🧑‍🚀 e\u0301\u200b", "<|not a token|> tulips"]
VERDICT = json.dumps(
    {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["good", "bad"]},
            "is_sure": {"type": "boolean"},
            "lines": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["verdict", "is_sure", "lines"],
        "additionalProperties": False,
    }
)
ENDLESS = json.dumps({"type": "object", "properties": {"text": {"type": "string", "minLength": 500}}, "required": ["text"]})


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine under test.

    Attributes:
        engine: It.
        model: What it runs.
        tokenizer: Of the model, for what is expected.
        context: Longest prompt plus reply.
        texts: Requests that the model answers in different ways.
        silent: Messages to which the model's likeliest first token is its stop token.
        most_in_hand: Calls that it may have taken and not answered.
        reference: Another engine with the same weights: likeliest replies, choices and probabilities must be the same.
        shows_cut_characters: A character that the limit cut ends the text as U+FFFD. Not so through HTTP: vLLM's server leaves it out.
    """

    engine: ChatEngine
    model: ModelRef
    tokenizer: Any
    context: int
    texts: list[str]
    silent: Messages
    most_in_hand: int
    reference: ChatEngine | None = None
    shows_cut_characters: bool = True


def said(text: str, sample_index: int = 0, **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sample_index, **more)


def ask(engine: ChatEngine, requests: list[ChatRequest], sampling: Sampling) -> list[ChatAnswer]:
    """Answers in order; every call must be answered once."""
    calls = ((str(number), request) for number, request in enumerate(requests))
    found = list(chain.from_iterable(engine.answer(calls, sampling)))
    assert sorted(key for key, _ in found) == sorted(str(number) for number in range(len(requests)))
    answers = dict(found)
    return [answers[str(number)] for number in range(len(requests))]


def spoken(answers: list[ChatAnswer]) -> list[ChatAnswer]:
    """Answers without what the prefix cache had, which depends on what was asked before."""
    return [replace(answer, cached_tokens=0, probabilities=None) for answer in answers]


class Conformance:
    """Every chat engine's properties."""

    greedy = Sampling(0.0, 1.0, 24, 7)
    warm = Sampling(0.6, 0.9, 24, 7)
    hot = Sampling(2.0, 1.0, 24, 7)
    wide = Sampling(2.0, 1.0, 60, 7)

    def test_the_chat_template_is_applied_once(self, tested: Subject) -> None:
        roles = ("system", "user", "assistant", "user")
        conversations = [[{"role": r, "content": t} for r, t in zip(roles[n:], tested.texts * 2, strict=False)] for n in (0, 1, 3)]
        answers = ask(tested.engine, [ChatRequest(messages) for messages in conversations], self.greedy)
        for messages, answer in zip(conversations, answers, strict=True):
            ids = tested.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
            assert ids.count(tested.tokenizer.bos_token_id) == 1
            assert (answer.error, answer.prompt_tokens) == (None, len(ids))

    def test_the_stop_token_ends_a_reply_and_the_limit_cuts_it(self, tested: Subject) -> None:
        answers = ask(tested.engine, [said(tested.texts[0], index) for index in range(60)], replace(self.hot, max_new_tokens=40))
        lengths = {reason: {a.completion_tokens for a in answers if a.finish_reason == reason} for reason in ("stop", "length")}
        assert lengths["length"] == {40}
        assert min(lengths["stop"]) < 40
        assert sum(answer.finish_reason in lengths for answer in answers) == 60
        assert not any(token in str(answer.text) for answer in answers for token in tested.tokenizer.all_special_tokens)

    def test_a_sample_is_the_same_alone_in_a_group_and_in_any_order(self, tested: Subject) -> None:
        requests = [said(text, index) for text in tested.texts for index in range(4)]
        together = spoken(ask(tested.engine, requests, self.warm))
        assert spoken(ask(tested.engine, requests, self.warm)) == together
        assert spoken(ask(tested.engine, requests[::-1], self.warm))[::-1] == together
        assert [spoken(ask(tested.engine, [request], self.warm))[0] for request in requests] == together

    def test_samples_and_seeds_differ_at_a_high_temperature(self, tested: Subject) -> None:
        requests = [said(tested.texts[0], index) for index in range(8)]
        samples, others = (ask(tested.engine, requests, replace(self.hot, seed=seed)) for seed in (7, 8))
        assert len({answer.text for answer in samples}) == 8
        assert all(one.text != other.text for one, other in zip(samples, others, strict=True))

    def test_temperature_zero_is_the_likeliest_reply(self, tested: Subject) -> None:
        requests = [said(text, index) for text in tested.texts + UNICODE for index in range(2)]
        answers = spoken(ask(tested.engine, requests, self.greedy))
        assert answers[::2] == answers[1::2]
        if tested.reference:
            expected = spoken(ask(tested.reference, requests, self.greedy))
            same = [one == other for one, other in zip(answers, expected, strict=True) if not str(other.text).endswith("\ufffd")]
            assert all(same)
            assert len(same) > len(requests) / 2

    def test_a_prompt_without_room_is_an_error_row_and_stops_nothing(self, tested: Subject) -> None:
        fits, long, after = ask(tested.engine, [said("hi"), said("tulips " * tested.context), said("hi", 1)], self.warm)
        assert (fits.error, after.error, long.text, long.completion_tokens) == (None, None, None, 0)
        assert str(long.error).startswith("prompt_too_long: ")
        assert "tulips" not in str(long.error)

    def test_the_room_for_the_reply_is_counted_exactly(self, tested: Subject) -> None:
        prompt_tokens = ask(tested.engine, [said("hi")], self.greedy)[0].prompt_tokens
        for new_tokens, is_error in ((tested.context - prompt_tokens, False), (tested.context - prompt_tokens + 1, True)):
            [answer] = ask(tested.engine, [said("hi")], replace(self.greedy, max_new_tokens=new_tokens))
            assert str(answer.error).startswith("prompt_too_long: ") is is_error
            assert (answer.text is None) is is_error

    def test_a_choice_is_one_of_the_choices_and_has_their_probabilities(self, tested: Subject) -> None:
        requests = [said(text, index, choices=choices) for text in tested.texts for index, choices in enumerate((LETTERS, LETTERS[::-1]))]
        for sampling in (self.greedy, replace(self.hot, temperature=1.0)):
            answers = ask(tested.engine, requests, sampling)
            for request, answer in zip(requests, answers, strict=True):
                assert (answer.error, answer.finish_reason) == (None, "stop")
                assert len(answer.probabilities or []) == len(LETTERS)
                assert sum(answer.probabilities or []) == pytest.approx(1)
                shares = dict(zip(request.choices, answer.probabilities or [], strict=True))
                assert shares[str(answer.text)] == max(shares.values()) or sampling.temperature
            for answer, other in zip(answers, ask(tested.reference, requests, sampling) if tested.reference else answers, strict=True):
                assert answer.text == other.text
                assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-3)

    def test_choices_are_drawn_by_their_probability(self, tested: Subject) -> None:
        requests = [said(tested.texts[0], index, choices=LETTERS) for index in range(400)]
        answers = ask(tested.engine, requests, Sampling(1.0, 1.0, 24, 7))
        for letter, probability in zip(LETTERS, answers[0].probabilities or [], strict=True):
            assert sum(answer.text == letter for answer in answers) / 400 == pytest.approx(probability, abs=0.08)

    def test_a_reply_under_a_schema_is_valid_and_ends(self, tested: Subject) -> None:
        requests = [said(text, index, json_schema=VERDICT) for text in tested.texts for index in range(6)]
        for sampling in (replace(self.greedy, max_new_tokens=60), self.wide):
            answers = ask(tested.engine, requests, sampling)
            assert {(answer.error, answer.finish_reason) for answer in answers} == {(None, "stop")}
            for answer in answers:
                Draft202012Validator(json.loads(VERDICT)).validate(json.loads(str(answer.text)))
            if tested.reference and sampling.temperature == 0:
                assert spoken(answers) == spoken(ask(tested.reference, requests, sampling))
        assert len({answer.text for answer in answers}) > 2
        assert spoken(ask(tested.engine, requests[::-1], sampling))[::-1] == spoken(answers)

    def test_a_reply_that_the_limit_cut_is_no_json(self, tested: Subject) -> None:
        requests = [said("hi", json_schema=ENDLESS), said("hi", json_schema=VERDICT), said("hi")]
        cut, whole, free = ask(tested.engine, requests, self.wide)
        assert (cut.text, cut.error, cut.completion_tokens) == (None, "invalid_json: the length limit cut it", 60)
        assert (whole.error, free.error) == (None, None)
        assert spoken([free]) == spoken(ask(tested.engine, requests[2:], self.wide))

    @pytest.mark.parametrize("schema", ["tulips", '{"type": "tulip"}'])
    def test_an_invalid_schema_is_refused(self, tested: Subject, schema: str) -> None:
        with pytest.raises(InvalidSchemaError, match="the JSON schema is"):
            ask(tested.engine, [said("hi", json_schema=schema)], self.greedy)
        assert ask(tested.engine, [said("hi")], self.greedy)[0].error is None

    def test_an_empty_reply_is_an_empty_text(self, tested: Subject) -> None:
        [answer] = ask(tested.engine, [ChatRequest(tested.silent)], self.greedy)
        assert (answer.text, answer.error, answer.finish_reason, answer.completion_tokens) == ("", None, "stop", 1)

    def test_any_text_can_be_asked_and_answered(self, tested: Subject) -> None:
        texts = [text * repeats for text in UNICODE for repeats in (1, 2)]
        answers = ask(tested.engine, [said(text, index) for text in texts for index in range(40)], self.hot)
        assert {answer.error for answer in answers} == {None}
        assert any(not str(answer.text).isascii() for answer in answers)
        cut = sum(str(answer.text).endswith("\ufffd") and answer.finish_reason == "length" for answer in answers)
        assert cut > 0 if tested.shows_cut_characters else True

    def test_requests_of_all_kinds_mix(self, tested: Subject) -> None:
        kinds = [{}, {"choices": LETTERS}, {"json_schema": VERDICT}]
        requests = [said(text, index, **kind) for text in [*tested.texts, "tulips " * tested.context] for index, kind in enumerate(kinds)]
        sampling = replace(self.warm, max_new_tokens=60)
        together = spoken(ask(tested.engine, requests, sampling))
        assert together == [spoken(ask(tested.engine, [request], sampling))[0] for request in requests]
        assert sum(answer.error is not None for answer in together) == 3

    def test_calls_are_taken_as_there_is_room_and_all_taken_are_answered(self, tested: Subject) -> None:
        wanted = 3 * tested.most_in_hand
        taken, answered, most = 0, 0, 0

        def calls() -> Iterator[tuple[str, ChatRequest]]:
            nonlocal taken
            while taken < wanted:
                taken += 1
                yield str(taken), said(tested.texts[taken % len(tested.texts)], taken // len(tested.texts))

        for finished in tested.engine.answer(calls(), replace(self.warm, max_new_tokens=4)):
            most = max(most, taken - answered)
            answered += len(finished)
        assert most <= tested.most_in_hand
        assert answered == taken == wanted

    def test_no_request_is_no_work(self, tested: Subject) -> None:
        assert list(tested.engine.answer(iter([]), self.greedy)) == []
