"""Replies that are JSON under a schema: what the chat engines share, so that the same schema means the same everywhere.

What belongs here: checking schemas before work starts, the grammar that local engines hold replies to, and judging finished replies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import SchemaError
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from llguidance import LLMatcher

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest


class InvalidSchemaError(ValueError):
    """A request's JSON schema is none; every request with it would fail."""


@lru_cache(maxsize=256)
def validator(schema: str) -> Validator:
    """Compile a schema, JSON text.

    Raises:
        InvalidSchemaError: It is no valid JSON schema; the message says where.
    """
    try:
        parsed = json.loads(schema)
        kind = validator_for(parsed, default=Draft202012Validator)
        kind.check_schema(parsed)
    except ValueError as error:
        raise InvalidSchemaError(f"the JSON schema is no JSON: {error}") from error
    except SchemaError as error:
        raise InvalidSchemaError(f"the JSON schema is invalid at {error.json_path}: {error.message}") from error
    return kind(parsed)


@lru_cache(maxsize=256)
def grammar(schema: str) -> str:
    """Grammar of a schema for llguidance: JSON without optional whitespace, so that no reply is spent on it.

    Raises:
        InvalidSchemaError: It is invalid, or has keywords that llguidance cannot hold a reply to.
    """
    validator(schema)
    found = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
    if fault := LLMatcher.validate_grammar(found):
        raise InvalidSchemaError(f"no reply can be held to the JSON schema: {fault}")
    return found


def checked(request: ChatRequest, answer: ChatAnswer) -> ChatAnswer:
    """The answer as it is, or an error row ``invalid_json`` if the request has a schema and the reply is not valid under it."""
    if request.json_schema is None or answer.text is None:
        return answer
    fault = _fault(answer.text, request.json_schema, is_cut=answer.finish_reason == "length")
    return replace(answer, text=None, error=f"invalid_json: {fault}") if fault else answer


def _fault(text: str, schema: str, *, is_cut: bool) -> str | None:
    """What is wrong with a reply, in words that contain none of it."""
    try:
        parsed = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        if is_cut:
            return "the length limit cut it"
        place = getattr(error, "pos", None)
        return "not JSON" if place is None else f"not JSON at character {place}"
    worst = best_match(validator(schema).iter_errors(parsed))
    return None if worst is None else f"{_path(worst.absolute_path, schema)} fails `{worst.validator}`"


def _refuse(constant: str) -> NoReturn:
    """Python reads NaN and Infinity, which are not JSON."""
    raise ValueError("a constant that JSON does not know")


def _path(parts: Iterable[Any], schema: str) -> str:
    """A JSON path; a key that the schema does not name is the model's text and becomes a star."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part if json.dumps(part) in schema else '*'}" for part in parts)
