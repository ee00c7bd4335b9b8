"""What comes back from a server of OpenAI's chat completions, from payloads to answers; nothing is taken on trust.

What belongs here: shapes of payloads, what they mean for the calls that shared the request (choices, JSON, lengths, tokens, cost), and
what errors mean. What does not: asking again for what is unusable (``server.py``, ``batches.py``).

Probabilities of choices are read from the log-probabilities at the reply's first token: those of tokens that begin exactly one choice are
added up, a choice that none of them begins counts as 0, and the rest is renormalised. vLLM gives them after its mask, so that all
choices are among them and the pick is that of the engines in process. A server without a mask gives its 20 likeliest tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from rlhi_dagster.engines.base import ChatAnswer, ChatCall, ChatRequest, Messages, Sampling, too_long
from rlhi_dagster.engines.choices import pick
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.schemas import checked
from rlhi_dagster.engines.settings import Price

_SHOWN = 200
"""Characters of a server's message that are shown."""
_SHINGLE = 16
"""So many characters in a row that also stand in a message are part of it."""
_TOO_LONG = re.compile(r"context[ _](length|window|size)|max_model_len|prompt is too long|input is too long", re.IGNORECASE)
_NO_MODEL = re.compile(r"(invalid|unknown) model|model\b.{0,80}\b(not found|not exist)", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


class MalformedError(ValueError):
    """A payload is not what it has to be; the message says why, without any of its text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One of a response's choices.

    Attributes:
        text: ``None`` where the server held it back.
        finish_reason: `stop`, `length` or `content_filter`.
        tokens: Its tokens, if the server tells them sample by sample.
        first: Tokens and log-probabilities at the first place, if given.
    """

    text: str | None
    finish_reason: str
    tokens: int | None
    first: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Response:
    """A response's good choices by their index, and the tokens of all together."""

    replies: dict[int, Reply]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def parse(payload: Any, wanted: int) -> Response:
    """Read a response. Choices with a wrong shape, an unknown index or an index that was there before are left out.

    Raises:
        MalformedError: There is no good choice.
    """
    if not isinstance(payload, dict):
        raise MalformedError("not JSON" if payload is None else "not an object")
    if payload.get("error"):
        raise MalformedError("an error with status 200")
    choices = payload.get("choices")
    if not isinstance(choices, list):
        raise MalformedError("no list of choices")
    replies: dict[int, Reply] = {}
    for choice in choices:
        index, reply = choice.get("index") if isinstance(choice, dict) else None, _reply(choice)
        if reply and type(index) is int and 0 <= index < wanted:
            replies.setdefault(index, reply)
    if not replies:
        raise MalformedError("no usable choice" if choices else "no choice")
    usage = payload.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    prompt = _count(usage, "prompt_tokens")
    return Response(replies, prompt, min(prompt, _count(details, "cached_tokens")), _count(usage, "completion_tokens"))


def _reply(choice: Any) -> Reply | None:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or choice.get("finish_reason") not in {"stop", "length", "content_filter"}:
        return None
    text, tokens = message.get("content"), choice.get("token_ids")
    if not isinstance(text, str | None):
        return None
    is_held_back = choice["finish_reason"] == "content_filter" or message.get("refusal")
    return Reply(
        text=None if is_held_back else _LONE_SURROGATE.sub("\ufffd", text or ""),
        finish_reason=choice["finish_reason"],
        tokens=len(tokens) if isinstance(tokens, list) else None,
        first=_first(choice.get("logprobs")),
    )


def _first(logprobs: Any) -> dict[str, float] | None:
    """Log-probabilities at the first token: of the one written, and of the likeliest ones."""
    try:
        written = logprobs["content"][0]
        return {entry["token"]: float(entry["logprob"]) for entry in (written, *(written.get("top_logprobs") or ()))}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _count(of: Any, name: str) -> int:
    """A number of tokens; 0 where a server does not count."""
    value = of.get(name) if isinstance(of, dict) else None
    return value if type(value) is int and value >= 0 else 0


@dataclass(slots=True)
class Judged:
    """What became of the calls of one request; one whose reply was not there is in none of the lists.

    Attributes:
        answers: Finished ones.
        unusable: Error rows of calls whose reply was no choice or not valid under its schema.
        cost_usd: Charged for the response.
        lacks_scores: Log-probabilities were asked for, and a reply has none. It was drawn at temperature 1, so it is no answer either.
    """

    answers: list[tuple[str, ChatAnswer]] = field(default_factory=list)
    unusable: list[tuple[str, ChatAnswer]] = field(default_factory=list)
    cost_usd: float = 0.0
    lacks_scores: bool = False


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

    def __call__(self, calls: Sequence[ChatCall], body: dict[str, Any], response: Response) -> Judged:
        """Judge the replies to ``calls``, which were asked for by ``body``; one reply stands for all calls if no more was asked for."""
        count, replies = body.get("n", 1), response.replies
        has_all = "logprobs" not in body or all(reply.first is not None for reply in replies.values() if reply.text)
        judged = Judged(cost_usd=self._cost(response), lacks_scores=not has_all)
        for place, call in enumerate(calls):
            index = min(place, count - 1)
            if index not in replies:
                continue
            cached = response.cached_tokens if place == 0 else response.prompt_tokens
            blank = ChatAnswer(None, None, None, response.prompt_tokens, _tokens(index, response, count), cached_tokens=cached)
            reply = replies[index]
            answer = self._answer(call[1], reply, blank, is_counted=reply.tokens is not None or count == 1)
            is_wrong = (answer.error or "").split(":")[0] in {"not_a_choice", "invalid_json"} and reply.finish_reason != "length"
            (judged.unusable if is_wrong else judged.answers).append((call[0], answer))
        return judged

    def _cost(self, response: Response) -> float:
        if (price := self.price) is None:
            return 0.0
        cached_price = price.prompt_usd_per_million if price.cached_usd_per_million is None else price.cached_usd_per_million
        fresh = response.prompt_tokens - response.cached_tokens
        charged = fresh * price.prompt_usd_per_million + response.cached_tokens * cached_price
        return (charged + response.completion_tokens * price.completion_usd_per_million) / 1e6

    def _answer(self, request: ChatRequest, reply: Reply, blank: ChatAnswer, *, is_counted: bool) -> ChatAnswer:
        if reply.text is None:
            return replace(blank, error="content_filter: the server held the reply back")
        if self.context and (refused := too_long(request, blank.prompt_tokens, self.sampling, self.context)):
            return refused  # vLLM's server shortens the reply's room without a word
        if request.choices:
            return self._choice(request, reply.text.strip(), reply.first or {}, blank)
        most = self.sampling.max_new_tokens
        if is_counted and reply.finish_reason == "length" and 0 < blank.completion_tokens < most:
            error = f"prompt_too_long: {blank.prompt_tokens} prompt + {most} new tokens; the server cut the reply before"
            return replace(blank, error=error)
        fenced = _FENCE.fullmatch(reply.text) if request.json_schema else None
        text = fenced[1] if fenced else reply.text
        return checked(request, replace(blank, text=text, finish_reason=reply.finish_reason))

    def _choice(self, request: ChatRequest, text: str, first: dict[str, float], blank: ChatAnswer) -> ChatAnswer:
        """Draw by the scores of the choices as all engines do; without scores the reply itself has to be a choice."""
        scores = [-math.inf] * len(request.choices)
        for token, score in first.items():
            begun = token.strip()
            matches = [place for place, choice in enumerate(request.choices) if choice == begun]
            matches = matches or [place for place, choice in enumerate(request.choices) if begun and choice.startswith(begun)]
            if len(matches) == 1 and not math.isnan(score):
                scores[matches[0]] = float(np.logaddexp(scores[matches[0]], score))
        if max(scores) > -math.inf:
            draw = request.draw(self.model, self.sampling)
            picked, probabilities = pick(torch.tensor(scores, dtype=torch.float64), self.sampling.temperature, draw)
            return replace(blank, text=request.choices[picked], finish_reason="stop", probabilities=probabilities)
        if text in request.choices:
            return replace(blank, text=text, finish_reason="stop")
        return replace(blank, error=f"not_a_choice: the reply is none of {len(request.choices)} choices")


def _tokens(index: int, response: Response, count: int) -> int:
    """A reply's tokens. A server that does not tell them apart has them shared out by the length of the texts, the sum being exact."""
    told, total = response.replies[index].tokens, response.completion_tokens
    if told is not None or count == 1:
        return total if told is None else told
    ends = [0, *accumulate(1 + len(reply.text or "") for reply in response.replies.values())]
    place = list(response.replies).index(index)
    return total * ends[place + 1] // ends[-1] - total * ends[place] // ends[-1]


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says about a request that it did not answer.

    Attributes:
        status: Of HTTP.
        message: May contain parts of the prompt: to be shown by ``row`` only.
        code: The server's word for it.
        parameter: The field that it is about.
    """

    status: int
    message: str
    code: str
    parameter: str

    @property
    def is_of_the_moment(self) -> bool:
        """Another try may help."""
        return self.status in {408, 409, 425, 429} or self.status >= 500

    @property
    def is_too_long(self) -> bool:
        """Prompt and reply have no room in the model's context."""
        return self.code == "context_length_exceeded" or (self.status in {400, 413, 422} and bool(_TOO_LONG.search(self.message)))

    @property
    def is_about_model(self) -> bool:
        """The server has no such model."""
        is_said = self.status in {400, 404, 422} and bool(_NO_MODEL.search(self.message))
        return self.code == "model_not_found" or self.parameter == "model" or is_said

    @property
    def is_misdirected(self) -> bool:
        """The status is about the address, not about the request."""
        return self.status in {404, 405} or 300 <= self.status < 400

    def quotes(self, messages: Messages) -> bool:
        """Whether the message contains a part of the prompt."""
        said = " ".join(self.message.split()).lower()
        return any(_shares_text(said, " ".join(message["content"].split()).lower()) for message in messages)

    def row(self, messages: Messages) -> str:
        """The error row of a request that a server refuses: the message in short, and nothing of it if it quotes the prompt."""
        shown = "the server's message quotes the prompt" if self.quotes(messages) else " ".join(self.message.split())[:_SHOWN]
        reason = "prompt_too_long" if self.is_too_long else "content_filter" if self.code == "content_filter" else f"http_{self.status}"
        return f"{reason}: {shown or 'the server says nothing more'}"


def _shares_text(said: str, text: str) -> bool:
    """Whether ``said`` contains the text, or a part of it of ``_SHINGLE`` characters. Three letters are in any text."""
    if len(text) < _SHINGLE:
        return len(text) > 3 and text in said
    return any(said[start : start + _SHINGLE] in text for start in range(len(said) - _SHINGLE + 1))


def server_error(status: int, payload: Any) -> ServerError:
    """Read the error of any of the shapes that servers give it."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    found = payload.get("error", payload) if isinstance(payload, dict) else payload
    if not isinstance(found, dict):
        return ServerError(status, found if isinstance(found, str) else "", "", "")
    detail = found.get("message", found.get("detail", ""))
    if isinstance(detail, list):  # FastAPI's: its other fields quote what was sent
        detail = "; ".join(f"{_dotted(each.get('loc'))}: {each.get('msg')}" for each in detail if isinstance(each, dict))
    return ServerError(status, str(detail), str(found.get("code") or ""), str(found.get("param") or ""))


def _dotted(location: Any) -> str:
    return ".".join(map(str, location)) if isinstance(location, list) else ""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a server asks to wait, from ``retry-after-ms``, or ``Retry-After`` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())
