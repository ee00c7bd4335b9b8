"""What is sent to a server of OpenAI's chat completions: calls as one request body, and what to do where a server lacks a field.

What belongs here: grouping samples of the same messages, the body's fields, and the instructions that stand in for fields that a server
refuses. What does not: sending (``client.py``, ``batches.py``) and reading (``replies.py``, ``answers.py``).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from rlhi_dagster.engines.base import ChatRequest, Messages, Sampling, characters
from rlhi_dagster.engines.chat_templates import ARGUMENTS
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.replies import ServerError

Call = tuple[str, ChatRequest]
MOST_SAMPLES = 128
"""Samples in one request; OpenAI takes no more."""
TOP_LOGPROBS = 20
"""Log-probabilities asked for at the first token; OpenAI and vLLM give no more."""
_OTHER_SEED = 7919
"""Seeds of a repeated try are so far from those before: the same seed would give the same unusable reply."""
_OPTIONAL = (
    "structured_outputs",
    "response_format",
    "return_token_ids",
    "chat_template_kwargs",
    "top_logprobs",
    "logprobs",
    "max_tokens",
    "seed",
    "n",
)
"""Fields that servers are known to lack, and that can be done without."""
_CHOICES = "Answer with exactly one of the following, and write nothing else: {}"
_SCHEMA = "Answer with JSON only, without any other text. It must be valid under this JSON schema: {}"
_log = logging.getLogger(__name__)


def run_length(calls: Sequence[Call], most: int) -> int:
    """How many of the first ``calls`` make one request: the same messages and constraint, and sample indices that count up by one.

    They count up because a server gives its samples seeds that count up from the first one's (vLLM does).
    """
    _, first = calls[0]
    for place, (_, request) in enumerate(calls[:most]):
        expected = first.sample_index + place
        if (request.messages, request.choices, request.json_schema, request.sample_index) != (
            first.messages,
            first.choices,
            first.json_schema,
            expected,
        ):
            return place
    return min(len(calls), most)


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

    def samples(self, calls: Sequence[Call], sampling: Sampling) -> int:
        """Replies to ask for. One is enough for all calls where they differ by what we draw from it, or not at all."""
        request = calls[0][1]
        is_shared = self.scores_choices(request) or (sampling.temperature == 0 and not request.choices)
        return 1 if is_shared else len(calls)

    def scores_choices(self, request: ChatRequest) -> bool:
        """Whether probabilities of the request's choices are asked for."""
        return bool(request.choices) and not self._refused & {"logprobs", "top_logprobs"}

    def body(self, calls: Sequence[Call], sampling: Sampling, invalid: int = 0) -> dict[str, Any]:
        """The request for ``calls``, a run as of ``run_length``; ``invalid`` counts the unusable replies that they already got."""
        request = calls[0][1]
        is_scored, count = self.scores_choices(request), self.samples(calls, sampling)
        body: dict[str, Any] = {
            "model": self.model.name,
            "messages": request.messages,
            "temperature": 1.0 if is_scored else sampling.temperature,  # probabilities at temperature 1, wherever a server takes them
            "top_p": 1.0 if is_scored else sampling.top_p,
            "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens": room(request, sampling),
        }
        if "seed" not in self._refused:
            body["seed"] = (request.seed(self.model, sampling) + invalid * _OTHER_SEED) % 2**31
        if count > 1:
            body["n"] = count
        if self.is_vllm and "return_token_ids" not in self._refused:
            body["return_token_ids"] = True
        if self.renders and "chat_template_kwargs" not in self._refused:
            body["chat_template_kwargs"] = dict(ARGUMENTS)
        if is_scored:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return body | self._constraint(request, is_distrusted=invalid > 0)

    def _constraint(self, request: ChatRequest, *, is_distrusted: bool) -> dict[str, Any]:
        """The field that constrains the reply, and the messages with an instruction where it is refused or had no effect."""
        if not (request.choices or request.json_schema):
            return {}
        name, instruction = _constraint_name(request), _SCHEMA.format(request.json_schema)
        given: dict[str, Any] = {}
        if request.choices:
            given, instruction = {"structured_outputs": {"choice": list(request.choices)}}, _CHOICES.format(", ".join(request.choices))
        elif request.json_schema:
            schema = {"name": "reply", "schema": json.loads(request.json_schema), "strict": True}
            given = {"response_format": {"type": "json_schema", "json_schema": schema}}
        if is_distrusted or name in self._refused | self._ignored:
            given["messages"] = instructed(request.messages, instruction)
        if name in self._refused:
            del given[name.split(" ")[0]]
        return given

    def learn(self, error: ServerError, body: dict[str, Any], request: ChatRequest) -> bool:
        """Leave out from now on what a refusal names; false if it names nothing that can be left out.

        A schema is left out by itself: servers refuse some and take others.
        """
        message = "" if error.quotes(request.messages) else error.message
        for field in _OPTIONAL:
            if field in body and (error.parameter == field or re.search(rf"\b{field}\b", message)):
                self._leave_out(_constraint_name(request) if field == "response_format" else field, "refuses")
                return True
        return False

    def lacks_scores(self) -> None:
        """Note that a reply had no log-probabilities though they were asked for: choices will have no probabilities."""
        self._leave_out("logprobs", "ignores")

    def _leave_out(self, name: str, what: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            _log.warning("%s: the server %s `%s`; it is left out from now on", self.model.name, what, name.split(" ")[0])

    def ignores_constraint(self, request: ChatRequest) -> None:
        """Note that a reply was not as constrained: from now on an instruction says it, too."""
        name = _constraint_name(request)
        if name not in self._refused | self._ignored:
            self._ignored.add(name)
            _log.warning("%s: a reply was not as `%s` wants it; an instruction says so, too", self.model.name, name.split(" ")[0])


def _constraint_name(request: ChatRequest) -> str:
    return "structured_outputs" if request.choices else f"response_format {request.json_schema}"


def instructed(messages: Messages, instruction: str) -> Messages:
    """Messages that end with an instruction, in the user's last message if it comes last: templates want roles in turn."""
    if messages and messages[-1]["role"] == "user":
        return [*messages[:-1], {"role": "user", "content": f"{messages[-1]['content']}\n\n{instruction}"}]
    return [*messages, {"role": "user", "content": instruction}]


def room(request: ChatRequest, sampling: Sampling) -> int:
    """Most tokens of a reply. A choice has at most as many as bytes."""
    return max(len(choice.encode()) for choice in request.choices) if request.choices else sampling.max_new_tokens


def tokens_guessed(body: dict[str, Any]) -> int:
    """About how many tokens a request will use, for a limit by the minute."""
    new = body.get("max_tokens") or body["max_completion_tokens"]
    return characters(body["messages"]) // 4 + new * body.get("n", 1)
