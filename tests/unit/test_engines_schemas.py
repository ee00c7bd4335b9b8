"""Replies under a JSON schema: what is wrong with them is said without their text."""

from __future__ import annotations

import json

import pytest

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.schemas import InvalidSchemaError, checked, grammar, validator

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "additionalProperties": {"type": "integer"},
}


def judged(text: str | None, finish_reason: str = "stop", schema: object = SCHEMA) -> ChatAnswer:
    request = ChatRequest([{"role": "user", "content": "hi"}], json_schema=json.dumps(schema))
    return checked(request, ChatAnswer(text, None if text is not None else "timeout: 5 s", finish_reason, 3, 5))


def test_valid_replies_and_errors_stay_as_they_are() -> None:
    assert judged('{"label": "good", "lines": [1], "tulips": 2}').text == '{"label": "good", "lines": [1], "tulips": 2}'
    assert judged('{"label": "good"}', "length").error is None  # the limit came with its last token
    assert judged(None).error == "timeout: 5 s"
    plain = ChatAnswer("{", None, "stop", 3, 5)
    assert checked(ChatRequest([]), plain) == plain


@pytest.mark.parametrize(
    ("text", "reason", "fault"),
    [
        ('{"label": "tulips"}', "stop", "$.label fails `enum`"),
        ('{"lines": [1, "tulips"]}', "stop", "$.lines[1] fails `type`"),
        ('{"tulips": "tulips"}', "stop", "$.* fails `type`"),
        ('"tulips"', "stop", "$ fails `type`"),
        ('{"label": tulips', "stop", "not JSON at character 10"),
        ('{"label": "tu', "length", "the length limit cut it"),
        ('{"tulips": NaN}', "stop", "not JSON"),
        ("", "stop", "not JSON at character 0"),
    ],
)
def test_a_fault_is_named_by_its_place_and_without_text(text: str, reason: str, fault: str) -> None:
    answer = judged(text, reason)
    assert (answer.text, answer.error) == (None, f"invalid_json: {fault}")
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 5)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is no JSON"),
        ('{"properties": {"label": {"type": "tulip"}}}', r"invalid at \$\.properties\.label\.type"),
        ('{"type": "string", "pattern": "("}', "pattern"),
    ],
)
def test_an_invalid_schema_is_refused_and_the_place_named(schema: str, message: str) -> None:
    with pytest.raises(InvalidSchemaError, match=message):
        grammar(schema)


def test_a_schema_that_no_reply_can_be_held_to_is_only_good_for_judging() -> None:
    schema = '{"type": "object", "unevaluatedProperties": {"type": "string"}}'
    assert validator(schema).is_valid({"tulips": "red"})
    with pytest.raises(InvalidSchemaError, match=r"no reply can be held to the JSON schema.*unevaluatedProperties"):
        grammar(schema)
