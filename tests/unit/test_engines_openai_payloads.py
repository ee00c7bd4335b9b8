"""Responses of servers that call themselves compatible, in the shapes that they come in."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlhi_dagster.engines.openai.payloads import MalformedError, parse

REPLY = {"role": "assistant", "content": "4"}


def told(**choice: Any) -> dict[str, Any]:
    """A response with one choice, whose fields are given; ``...`` leaves one out."""
    fields = {"index": 0, "message": REPLY, "finish_reason": "stop"} | choice
    return {"choices": [{name: value for name, value in fields.items() if value is not ...}]}


@pytest.mark.parametrize(
    ("given", "finish_reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model-length", "length"),
        (None, ""),
        (..., ""),
        ("", ""),
        ("tulip", ""),
        (7, ""),
        ({"type": "stop"}, ""),
    ],
)
def test_why_a_reply_ended_is_understood_or_left_open(given: Any, finish_reason: str) -> None:
    [reply] = parse(told(finish_reason=given), 1).replies.values()
    assert (reply.text, reply.finish_reason, reply.error) == ("4", finish_reason, None)


@pytest.mark.parametrize("given", ["content_filter", "SAFETY", "content-filter", "refusal"])
def test_a_filtered_reply_is_held_back(given: str) -> None:
    [reply] = parse(told(finish_reason=given), 1).replies.values()
    assert (reply.text, reply.error) == ("", "content_filter: the server held the reply back")


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "tool_calls"},
        {"finish_reason": "function_call", "message": {"content": None, "function_call": {"name": "add"}}},
        {"message": {"content": None, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]}},
        {"message": {"content": "Let me add.", "tool_calls": [{"function": {"name": "add"}}]}, "finish_reason": "stop"},
    ],
)
def test_a_call_of_a_tool_is_no_reply(choice: dict[str, Any]) -> None:
    [reply] = parse(told(**choice), 1).replies.values()
    assert reply.error == "tool_calls: choices[0] calls a tool instead of replying, though none was offered"
    [reply] = parse(told(message={**REPLY, "tool_calls": [], "function_call": None}), 1).replies.values()
    assert (reply.text, reply.error) == ("4", None)


@pytest.mark.parametrize("given", [(0, 1), ("0", "1"), (0.0, 1.0), (None, None), (..., ...), (0, None), ("1", "0")])
def test_samples_are_told_apart_by_their_index_or_their_place(given: tuple[Any, Any]) -> None:
    choices = [told(index=index, message=f"sample {place}")["choices"][0] for place, index in enumerate(given)]
    replies = parse({"choices": choices}, 2).replies
    expected = {0: "sample 1", 1: "sample 0"} if given == ("1", "0") else {0: "sample 0", 1: "sample 1"}
    assert {index: reply.text for index, reply in replies.items()} == expected


@pytest.mark.parametrize(
    ("content", "text", "thoughts"),
    [
        (None, "", ""),
        ("4", "4", ""),
        ([], "", ""),
        ([{"type": "text", "text": "It is "}, {"type": "text", "text": "4"}], "It is 4", ""),
        ([{"type": "output_text", "text": "4", "annotations": []}], "4", ""),
        (["It is ", "4"], "It is 4", ""),
        ({"type": "text", "text": "4"}, "4", ""),
        ({"text": "4"}, "4", ""),
        ({"role": "model", "parts": [{"text": "4"}]}, "4", ""),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}], "4", '{"type": "thinking", "thinking": "hm"}'),
    ],
)
def test_content_is_text_or_parts(content: Any, text: str, thoughts: str) -> None:
    [reply] = parse(told(message={"content": content}), 1).replies.values()
    assert (reply.text, reply.thoughts, reply.error) == (text, thoughts, None)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_kept_apart(name: str) -> None:
    for message in ({name: "two and two", "content": None}, {name: "two and two"}):
        [reply] = parse(told(message=message), 1).replies.values()
        assert (reply.text, reply.thoughts) == ("", "two and two")
    [reply] = parse(told(message={name: None, **REPLY}), 1).replies.values()
    assert (reply.text, reply.thoughts) == ("4", "")


def test_completions_have_their_text_in_the_choice() -> None:
    [reply] = parse({"object": "text_completion", "choices": [{"text": "4", "finish_reason": "stop"}]}, 1).replies.values()
    assert (reply.text, reply.finish_reason) == ("4", "stop")


def test_json_that_was_asked_for_can_come_as_it_is() -> None:
    for content, text in (({"text": "4"}, '{"text": "4"}'), ([1, 2], "[1, 2]"), (4, "4"), ([{"type": "text", "text": "{}"}], "{}")):
        [reply] = parse(told(message={"content": content}), 1, is_json=True).replies.values()
        assert reply.text == text


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"choices": ["4"]}, "choices[0] is a text"),
        (told(index="first"), "choices[0].index is a text"),
        (told(index=0.5), "choices[0].index is a number"),
        (told(index=True), "choices[0].index is true or false"),
        (told(index=3), "choices[0].index is 3, and 1 asked for"),
        (told(message=...), "choices[0].message is missing"),
        (told(message=[REPLY]), "choices[0].message is a list"),
        (told(message={"role": "assistant"}), "choices[0].message.content is missing"),
        (told(message={"content": 7}), "choices[0].message.content is a number"),
        (told(message={"content": {}}), "choices[0].message.content is an object"),
        (told(message={"content": ["4", 7]}), "choices[0].message.content[1] is a number"),
        (told(message={"content": {"text": 7}}), "choices[0].message.content.text is a number"),
        (told(message={"content": [{"type": "image_url", "image_url": {}}]}), "choices[0].message.content[0].type is image_url"),
        (told(message=..., text=7), "choices[0].text is a number"),
        (told(finish_reason="error"), "choices[0].finish_reason is error"),
        (told(error={"message": "upstream"}), "choices[0].error is there"),
    ],
)
def test_what_cannot_be_read_is_named(payload: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedError) as raised:
        parse(payload, 1)
    assert str(raised.value) == says
    good = told(index=1, message="4")["choices"]
    response = parse({"choices": [*payload["choices"], *good]}, 2)
    assert ({index: reply.text for index, reply in response.replies.items()}, response.odd) == (
        {1: "4"},
        says.replace("1 asked", "2 asked"),
    )


def test_what_is_nested_too_deeply_is_odd_and_no_crash() -> None:
    content: Any = "4"
    for _ in range(5000):
        content = [content]
    with pytest.raises(MalformedError, match="recursion"):
        parse(told(message={"content": content}), 1)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, (10, 4, 5)),
        ({"prompt_tokens": 10.0, "completion_tokens": "5", "prompt_tokens_details": {"cached_tokens": 40.0}}, (10, 10, 5)),
        ({"input_tokens": 10, "output_tokens": 5}, (10, 0, 5)),
        ({"prompt_tokens": None, "completion_tokens": math.nan, "prompt_tokens_details": None}, (0, 0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (0, 0, 0)),
        (None, (0, 0, 0)),
        ("none", (0, 0, 0)),
    ],
)
def test_tokens_are_counted_in_whole_numbers_or_not_at_all(usage: Any, counts: tuple[int, int, int]) -> None:
    response = parse(told() | {"usage": usage}, 1)
    assert (response.prompt_tokens, response.cached_tokens, response.completion_tokens) == counts


@pytest.mark.parametrize(
    ("entries", "first"),
    [
        ([{"token": "A", "logprob": -0.5, "top_logprobs": [{"token": "A", "logprob": -0.5}, {"token": "B", "logprob": -1}]}], 2),
        ([{"token": "A", "logprob": "-0.5", "top_logprobs": [{"token": "B", "logprob": "-1"}]}], 2),
        ([{"token": "A", "logprob": -0.5, "top_logprobs": []}], None),  # one alone tells nothing of the others
        ([{"token": "A", "logprob": 0.0}], None),
        ([{"token": "A", "logprob": 12.5, "top_logprobs": [{"token": "B", "logprob": 11}]}], None),
        ([{"token": "A", "logprob": math.nan, "top_logprobs": [{"token": "B", "logprob": -1}]}], None),
        ([{"token": "A", "logprob": None}], None),
        ([], None),
    ],
)
def test_log_probabilities_are_several_or_none(entries: list[dict[str, Any]], first: int | None) -> None:
    [reply] = parse(told(logprobs={"content": entries}), 1).replies.values()
    assert (reply.first and len(reply.first)) == first
