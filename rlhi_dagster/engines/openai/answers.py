"""From a server's response to the answers of the calls that shared the request: choices, JSON, lengths, tokens, cost.

What belongs here: judging replies. What does not: asking again for those that are unusable (``client.py``).

Probabilities of choices are read from the log-probabilities at the reply's first token: those of tokens that begin exactly one choice are
added up, a choice that none of them begins counts as 0, and the rest is renormalised. vLLM gives them after its mask, so that all
choices are among them and the pick is that of the engines in process. A server without a mask gives its 20 likeliest tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling, too_long
from rlhi_dagster.engines.choices import pick
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.replies import Reply, Response
from rlhi_dagster.engines.openai.requests import Call
from rlhi_dagster.engines.schemas import checked
from rlhi_dagster.engines.settings import Price

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


@dataclass(slots=True)
class Judged:
    """What became of the calls of one request.

    Attributes:
        answers: Finished ones.
        missing: Calls whose reply was not there.
        unusable: Calls whose reply was no choice or not valid under its schema, each with the error row that says so.
        cost_usd: Charged for the response.
    """

    answers: list[tuple[str, ChatAnswer]] = field(default_factory=list)
    missing: list[Call] = field(default_factory=list)
    unusable: list[tuple[Call, ChatAnswer]] = field(default_factory=list)
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Judge:
    """Turns responses into answers.

    Attributes:
        model: That answered.
        sampling: Of the replies.
        context: Longest prompt plus reply, if the server says so.
        price: What the server charges.
    """

    model: ModelRef
    sampling: Sampling
    context: int | None
    price: Price | None

    def __call__(self, calls: Sequence[Call], body: dict[str, Any], response: Response) -> Judged:
        """Judge the replies to ``calls``, which were asked for by ``body``; one reply stands for all calls if no more was asked for."""
        count = body.get("n", 1)
        judged = Judged(cost_usd=cost(response, self.price))
        for place, call in enumerate(calls):
            reply = response.replies.get(min(place, count - 1))
            if reply is None:
                judged.missing.append(call)
                continue
            cached = response.cached_tokens if place == 0 else response.prompt_tokens
            blank = ChatAnswer(None, None, None, response.prompt_tokens, _tokens(reply, response, count), cached_tokens=cached)
            answer = self._answer(call[1], reply, blank, is_counted=reply.tokens is not None or count == 1)
            if answer.error and answer.error.split(":")[0] in {"not_a_choice", "invalid_json"} and reply.finish_reason != "length":
                judged.unusable.append((call, answer))
            else:
                judged.answers.append((call[0], answer))
        return judged

    def _answer(self, request: ChatRequest, reply: Reply, blank: ChatAnswer, *, is_counted: bool) -> ChatAnswer:
        if reply.text is None:
            return replace(blank, error="content_filter: the server held the reply back")
        if self.context and (refused := too_long(request, blank.prompt_tokens, self.sampling, self.context)):
            return refused  # vLLM's server shortens the reply's room without a word
        if request.choices:
            return self._choice(request, reply, blank)
        most = self.sampling.max_new_tokens
        if is_counted and reply.finish_reason == "length" and 0 < blank.completion_tokens < most:
            error = f"prompt_too_long: {blank.prompt_tokens} prompt + {most} new tokens; the server cut the reply before"
            return replace(blank, error=error)
        fenced = _FENCE.fullmatch(reply.text) if request.json_schema else None
        text = fenced[1] if fenced else reply.text
        return checked(request, replace(blank, text=text, finish_reason=reply.finish_reason))

    def _choice(self, request: ChatRequest, reply: Reply, blank: ChatAnswer) -> ChatAnswer:
        """Draw by the scores of the choices as all engines do; without scores the reply itself has to be a choice."""
        if scores := choice_scores(request.choices, reply.first or {}):
            draw = request.draw(self.model, self.sampling)
            picked, probabilities = pick(torch.tensor(scores, dtype=torch.float64), self.sampling.temperature, draw)
            return replace(blank, text=request.choices[picked], finish_reason="stop", probabilities=probabilities)
        if (text := (reply.text or "").strip()) in request.choices:
            return replace(blank, text=text, finish_reason="stop")
        return replace(blank, error=f"not_a_choice: the reply is none of {len(request.choices)} choices")


def lacks_scores(body: dict[str, Any], response: Response) -> bool:
    """Whether log-probabilities were asked for and a reply has none. It was drawn at temperature 1, so it is no answer either."""
    return "logprobs" in body and any(reply.text and reply.first is None for reply in response.replies.values())


def choice_scores(choices: tuple[str, ...], first: dict[str, float]) -> list[float] | None:
    """Log-probability per choice from those of first tokens; ``None`` if no choice has any."""
    scores = [-math.inf] * len(choices)
    for token, score in first.items():
        begun = token.strip()
        matches = [place for place, choice in enumerate(choices) if choice == begun]
        matches = matches or [place for place, choice in enumerate(choices) if begun and choice.startswith(begun)]
        if len(matches) == 1 and not math.isnan(score):
            scores[matches[0]] = float(np.logaddexp(scores[matches[0]], score))
    return scores if max(scores) > -math.inf else None


def cost(response: Response, price: Price | None) -> float:
    """What a server charges for a response."""
    if price is None:
        return 0.0
    cached_price = price.prompt_usd_per_million if price.cached_usd_per_million is None else price.cached_usd_per_million
    fresh = response.prompt_tokens - response.cached_tokens
    charged = fresh * price.prompt_usd_per_million + response.cached_tokens * cached_price
    return (charged + response.completion_tokens * price.completion_usd_per_million) / 1e6


def _tokens(reply: Reply, response: Response, count: int) -> int:
    """A reply's tokens. A server that does not tell them apart has them shared out by the length of the texts, the sum being exact."""
    if reply.tokens is not None or count == 1:
        return response.completion_tokens if reply.tokens is None else reply.tokens
    total, before, lengths = response.completion_tokens, 0, 0
    weights = {index: 1 + len(each.text or "") for index, each in response.replies.items()}
    for index, weight in weights.items():
        before, lengths = lengths, lengths + weight
        if response.replies[index] is reply:
            break
    whole = sum(weights.values())
    return total * lengths // whole - total * before // whole
