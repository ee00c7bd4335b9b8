"""The one place where what a model wrote becomes a reply."""

from __future__ import annotations

import json

import pytest

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.replies import replied

FREE = ChatRequest([{"role": "user", "content": "2+2"}])
UNDER_SCHEMA = ChatRequest(FREE.messages, json_schema=json.dumps({"type": "object", "required": ["sum"]}))
NOTHING_ELSE = "only_thoughts: the reply is thoughts and nothing else"


def written(text: str, finish_reason: str = "stop") -> ChatAnswer:
    return ChatAnswer(text, None, finish_reason, 10, 5)


def test_a_reply_is_what_is_not_thought_and_keeps_its_counts() -> None:
    answer = replied(FREE, written("<think>two and two</think>\n\n4"))
    assert answer == written("4")
    assert replied(FREE, written(" 4\n")) == written(" 4\n")
    assert replied(FREE, written("")) == written("")


@pytest.mark.parametrize("text", ["<think>two</think>", "<think>\n\n</think>\n\n", "<think>two", "two</think>\n"])
def test_thoughts_alone_are_an_error_and_no_empty_reply(text: str) -> None:
    answer = replied(FREE, written(text))
    assert (answer.text, answer.error, answer.failure) == (None, NOTHING_ELSE, NOTHING_ELSE)
    assert (answer.prompt_tokens, answer.completion_tokens) == (10, 5)


def test_thoughts_that_the_limit_cut_are_said_to_be_cut() -> None:
    told = f"{NOTHING_ELSE}; the length limit cut it, max_new_tokens may be too small"
    assert replied(FREE, written("<think>two", "length")).failure == told
    assert replied(FREE, written("", "length"), has_thoughts=True).failure == told


def test_thoughts_can_stand_elsewhere_or_begin_in_the_prompt() -> None:
    assert replied(FREE, written("\n\n"), has_thoughts=True).error == NOTHING_ELSE
    assert replied(FREE, written("4"), has_thoughts=True).text == "4"
    assert replied(FREE, written("two and two"), begun="<think>").error == NOTHING_ELSE
    assert replied(FREE, written("two</think>4"), begun="<think>").text == "4"


def test_json_is_judged_without_thoughts_and_fences() -> None:
    assert replied(UNDER_SCHEMA, written('<think>{}</think>\n```json\n{"sum": 4}\n```')).text == '{"sum": 4}'
    assert str(replied(UNDER_SCHEMA, written("<think>hm</think>{}")).error).startswith("invalid_json: ")
    assert replied(UNDER_SCHEMA, written('{"sum": 4}'), begun="<think>").text == '{"sum": 4}'
