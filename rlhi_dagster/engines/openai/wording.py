"""What a server of OpenAI's chat completions is sent: calls as one request body, and what to do where a server lacks a field.

What belongs here: grouping samples of the same messages, the body's fields, and the instructions that stand in for fields that a server
refuses. Control tokens in messages go as text. What does not: sending (``server.py``, ``batches.py``) and reading what comes back
(``reading.py``).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from rlhi_dagster.base.control_tokens import escaped_messages
from rlhi_dagster.engines.base import ChatCall, ChatRequest, Messages, Sampling, characters
from rlhi_dagster.engines.chat_templates import ARGUMENTS
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.reading import ServerError

MOST_SAMPLES = 128
"""Samples in one request; OpenAI takes no more."""
TOP_LOGPROBS = 20
"""Log-probabilities asked for at the first token; OpenAI and vLLM give no more."""
_OTHER_SEED = 7919
"""Seeds of a repeated try are so far from those before: the same seed would give the same unusable reply."""
_OPTIONAL = (
    *("structured_outputs", "response_format", "return_token_ids", "chat_template_kwargs"),
    *("top_logprobs", "logprobs", "max_tokens", "seed", "n"),
)
"""Fields that servers are known to lack, and that can be done without."""
_CHOICES = "Answer with exactly one of the following, and write nothing else: {}"
_SCHEMA = "Answer with JSON only, without any other text. It must be valid under this JSON schema: {}"
_log = logging.getLogger(__name__)


def run_length(calls: Sequence[ChatCall], most: int) -> int:
    """How many of the first ``calls`` make one request: the same messages and constraint, and sample indices that count up by one.

    They count up because a server gives its samples seeds that count up from the first one's (vLLM does).
    """

    def shape(place: int) -> tuple[Any, ...]:
        request = calls[place][1]
        return request.sample_index - place, request.choices, request.json_schema, request.messages

    first, count = shape(0), min(len(calls), most)
    return next((place for place in range(1, count) if shape(place) != first), count)


class Dialect:
    """How one server wants to be asked: begins with every field and leaves out what the server refuses.

    Attributes:
        model: Asked for by its name.
        is_vllm: The server is vLLM's own, which tells the tokens of each sample on request.
        renders: The server is known to render a chat template with arguments that it is given.
    """

    def __init__(self, model: ModelRef) -> None:
        self.model, self.is_vllm, self.renders = model, False, False
        self._refused: set[str] = set()
        self._ignored: set[str] = set()

    @property
    def most_samples(self) -> int:
        """Samples that one request may ask for."""
        return 1 if "n" in self._refused else MOST_SAMPLES

    def body(self, calls: Sequence[ChatCall], sampling: Sampling, invalid: int = 0) -> dict[str, Any]:
        """The request for ``calls``, a run as of ``run_length``; ``invalid`` counts the unusable replies that they already got.

        One reply is asked for where the calls differ by what we draw from it (choices with probabilities), or not at all (greedy).
        Probabilities are asked for at temperature 1, wherever a server takes them. A choice has at most as many tokens as bytes.
        """
        request = calls[0][1]
        is_scored = bool(request.choices) and not self._refused & {"logprobs", "top_logprobs"}
        body: dict[str, Any] = {
            "model": self.model.name,
            "messages": escaped_messages(request.messages),
            "temperature": 1.0 if is_scored else sampling.temperature,
            "top_p": 1.0 if is_scored else sampling.top_p,
        }
        room = max((len(choice.encode()) for choice in request.choices), default=sampling.max_new_tokens)
        body["max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"] = room
        optional: dict[str, Any] = {"seed": (request.seed(self.model, sampling) + invalid * _OTHER_SEED) % 2**31}
        if len(calls) > 1 and not is_scored and (sampling.temperature > 0 or request.choices):
            optional["n"] = len(calls)
        if self.is_vllm:
            optional["return_token_ids"] = True
        if self.renders:
            optional["chat_template_kwargs"] = dict(ARGUMENTS)
        if is_scored:
            optional |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        body |= {name: value for name, value in optional.items() if name not in self._refused}
        return body | self._constraint(request, is_distrusted=invalid > 0)

    def _constraint(self, request: ChatRequest, *, is_distrusted: bool) -> dict[str, Any]:
        """The field that constrains the reply, and the messages with an instruction where it is refused or had no effect."""
        given: dict[str, Any]
        if request.choices:
            given, instruction = {"structured_outputs": {"choice": list(request.choices)}}, _CHOICES.format(", ".join(request.choices))
        elif request.json_schema:
            schema = {"name": "reply", "schema": json.loads(request.json_schema), "strict": True}
            given, instruction = {"response_format": {"type": "json_schema", "json_schema": schema}}, _SCHEMA.format(request.json_schema)
        else:
            return {}
        name = _constraint_name(request)
        if name in self._refused:
            given = {}
        if is_distrusted or name in self._refused | self._ignored:
            given["messages"] = instructed(escaped_messages(request.messages), instruction)
        return given

    def learn(self, error: ServerError, body: dict[str, Any], request: ChatRequest) -> bool:
        """Leave out from now on what a refusal names; false if it names nothing that can be left out.

        A schema is left out by itself: servers refuse some and take others.
        """
        message = "" if error.quotes(request.messages) else error.message
        for field in _OPTIONAL:
            if field in body and (error.parameter == field or re.search(rf"\b{field}\b", message)):
                name = _constraint_name(request) if field == "response_format" else field
                self._note(self._refused, name, "the server refuses `{}`; it is left out from now on")
                return True
        return False

    def lacks_scores(self) -> None:
        """Note that a reply had no log-probabilities though they were asked for: choices will have no probabilities."""
        self._note(self._refused, "logprobs", "the server ignores `{}`; it is left out from now on")

    def ignores_constraint(self, request: ChatRequest) -> None:
        """Note that a reply was not as constrained: from now on an instruction says it, too."""
        self._note(self._ignored, _constraint_name(request), "a reply was not as `{}` wants it; an instruction says so, too")

    def _note(self, noted: set[str], name: str, told: str) -> None:
        if name not in self._refused | noted:
            noted.add(name)
            _log.warning("%s: %s", self.model.name, told.format(name.split(" ")[0]))


def _constraint_name(request: ChatRequest) -> str:
    return "structured_outputs" if request.choices else f"response_format {request.json_schema}"


def instructed(messages: Messages, instruction: str) -> Messages:
    """Messages that end with an instruction, in the user's last message if it comes last: templates want roles in turn."""
    if messages and messages[-1]["role"] == "user":
        return [*messages[:-1], {"role": "user", "content": f"{messages[-1]['content']}\n\n{instruction}"}]
    return [*messages, {"role": "user", "content": instruction}]


def tokens_guessed(body: dict[str, Any]) -> int:
    """About how many tokens a request will use, for a limit by the minute."""
    new = body.get("max_tokens") or body["max_completion_tokens"]
    return characters(body["messages"]) // 4 + new * body.get("n", 1)
