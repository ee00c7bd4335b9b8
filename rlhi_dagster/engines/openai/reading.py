"""What comes back from a server of OpenAI's chat completions, from responses to answers; nothing is taken on trust.

What belongs here: what responses mean for the calls that shared the request (choices, lengths, tokens, cost), and what errors mean. What
does not: their shapes (``payloads.py``), and asking again for what is unusable (``server.py``, ``batches.py``).

Probabilities of choices are read from the log-probabilities at the reply's first token, and renormalised. vLLM gives them after its mask,
so that all choices are among them and the pick is that of the engines in process. A server without a mask gives its 20 likeliest
tokens; where they leave the probabilities in doubt there are none, and the reply is no choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any

import torch

from rlhi_dagster.engines.base import ChatAnswer, ChatCall, ChatRequest, Messages, Sampling, too_long
from rlhi_dagster.engines.choices import doubt, pick, shown_scores
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.payloads import Reply, Response
from rlhi_dagster.engines.replies import replied
from rlhi_dagster.engines.settings import Price

_SHOWN = 200
"""Characters of a server's message that are shown."""
_SHINGLE = 16
"""So many characters in a row that also stand in a message are part of it."""
_TOO_LONG = re.compile(r"context[ _](length|window|size)|max_model_len|prompt is too long|input is too long", re.IGNORECASE)
_NO_MODEL = re.compile(r"(invalid|unknown) model|model\b.{0,80}\b(not found|not exist)", re.IGNORECASE)
_FILTERED = re.compile(r"content[ _](filter|policy|management)|moderation|flagged|data_?inspection|invalid_prompt", re.IGNORECASE)


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
        count: Tokens of a text, where the server does not count.
    """

    model: ModelRef
    sampling: Sampling
    context: int | None
    price: Price | None
    count: Callable[[str], int]

    def __call__(self, calls: Sequence[ChatCall], body: dict[str, Any], response: Response) -> Judged:
        """Judge the replies to ``calls``, which were asked for by ``body``; one reply stands for all calls if no more was asked for."""
        count, replies, told = body.get("n", 1), response.replies, response
        response = self._counted(body, told)
        has_all = "logprobs" not in body or all(reply.first for reply in replies.values() if reply.text)
        judged = Judged(cost_usd=self.cost(response), lacks_scores=not has_all)
        for place, call in enumerate(calls):
            index = min(place, count - 1)
            if index not in replies:
                continue
            reply = replies[index]
            blank = ChatAnswer(None, None, None, response.prompt_tokens, _tokens(index, response, count), is_estimated=response != told)
            blank = replace(blank, cached_tokens=response.cached_tokens if place == 0 else response.prompt_tokens)
            finish_reason = reply.finish_reason or ("stop" if blank.completion_tokens < self.sampling.max_new_tokens else "length")
            is_exact = response == told and (reply.tokens is not None or count == 1)
            answer = self._answer(call[1], reply, replace(blank, finish_reason=finish_reason), is_exact, "logprobs" in body)
            reason = (answer.error or "").split(":")[0]
            is_wrong = reason == "not_a_choice" or (reason == "invalid_json" and finish_reason != "length")
            (judged.unusable if is_wrong else judged.answers).append((call[0], answer))
        return judged

    def _counted(self, body: dict[str, Any], response: Response) -> Response:
        """The response with a count of our own where the server has none."""
        prompt = response.prompt_tokens or sum(self.count(message["content"]) for message in body["messages"])
        written = response.completion_tokens or sum(
            self.count(reply.thoughts + reply.text) if reply.tokens is None else reply.tokens for reply in response.replies.values()
        )
        return replace(response, prompt_tokens=prompt, completion_tokens=written)

    def cost(self, response: Response) -> float:
        """What the server charges for a response, in US dollars."""
        if (price := self.price) is None:
            return 0.0
        cached_price = price.prompt_usd_per_million if price.cached_usd_per_million is None else price.cached_usd_per_million
        fresh = response.prompt_tokens - response.cached_tokens
        charged = fresh * price.prompt_usd_per_million + response.cached_tokens * cached_price
        return (charged + response.completion_tokens * price.completion_usd_per_million) / 1e6

    def _answer(self, request: ChatRequest, reply: Reply, blank: ChatAnswer, is_exact: bool, is_scored: bool) -> ChatAnswer:
        failed, most = replace(blank, finish_reason=None), self.sampling.max_new_tokens
        if reply.error:
            return replace(failed, error=reply.error, is_retryable=not reply.error.startswith(("content_filter", "no_reply")))
        if self.context and not blank.is_estimated and (refused := too_long(request, blank.prompt_tokens, self.sampling, self.context)):
            return refused  # vLLM's server shortens the reply's room without a word
        if is_scored and reply.first:
            return self._drawn(request, reply.first, failed)
        is_cut = is_exact and blank.finish_reason == "length" and not request.choices and not reply.thoughts
        if is_cut and 0 < blank.completion_tokens < most:
            error = f"prompt_too_long: {blank.prompt_tokens} prompt + {most} new tokens; the server cut the reply before"
            return replace(failed, error=error)
        answer = replied(request, replace(blank, text=reply.text), has_thoughts=bool(reply.thoughts))
        if answer.text is None or not request.choices:
            is_thoughts = (answer.error or "").startswith("only_thoughts")
            return replace(answer, is_retryable=is_thoughts)  # whether its model thinks is the server's matter, which may be mended
        if (text := answer.text.strip()) in request.choices:
            return replace(answer, text=text, finish_reason="stop")
        return replace(failed, error=f"not_a_choice: the reply is none of {len(request.choices)} choices")

    def _drawn(self, request: ChatRequest, first: dict[str, float], blank: ChatAnswer) -> ChatAnswer:
        """Draw by the scores of the choices as all engines do, unless they are in doubt."""
        scores = shown_scores(request.choices, first)
        if told := doubt(scores, first):
            return replace(blank, error=f"not_a_choice: {told}")
        draw = request.draw(self.model, self.sampling)
        picked, probabilities = pick(torch.tensor(scores, dtype=torch.float64), self.sampling.temperature, draw)
        return replace(blank, text=request.choices[picked], finish_reason="stop", probabilities=probabilities)


def _tokens(index: int, response: Response, count: int) -> int:
    """A reply's tokens. A server that does not tell them apart has them shared out by the length of the texts, the sum being exact."""
    told, total = response.replies[index].tokens, response.completion_tokens
    if told is not None or count == 1:
        return total if told is None else told
    ends = [0, *accumulate(1 + len(reply.thoughts + reply.text) for reply in response.replies.values())]
    place = list(response.replies).index(index)
    return total * ends[place + 1] // ends[-1] - total * ends[place] // ends[-1]


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says about a request that it did not answer, or about a batch that failed.

    Attributes:
        status: Of HTTP.
        message: May contain parts of the prompt: to be shown by ``shown`` only.
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
        return self.code == "model_not_found" or self.parameter == "model" or (self.status == 404 and self.names_no_model)

    @property
    def names_no_model(self) -> bool:
        """The message speaks of a model that is not there; it may quote the prompt."""
        return self.status in {400, 404, 422} and bool(_NO_MODEL.search(self.message))

    @property
    def is_unpaid(self) -> bool:
        """The account has no credit left."""
        return self.status == 402 or self.code in {"insufficient_quota", "billing_hard_limit_reached"}

    @property
    def may_be_about_prompt(self) -> bool:
        """It looks like denied access or a missing model, and can yet be about what one prompt says."""
        return not self.is_unpaid and (self.status == 403 or (self.names_no_model and not self.is_about_model))

    @property
    def is_misdirected(self) -> bool:
        """The status is about the address, not about the request."""
        return self.status in {404, 405} or 300 <= self.status < 400

    def quotes(self, messages: Messages) -> bool:
        """Whether the message contains a part of the prompt."""
        said = " ".join(self.message.split()).lower()
        return any(_shares_text(said, " ".join(message["content"].split()).lower()) for message in messages)

    def is_filtered(self, messages: Messages) -> bool:
        """The server does not want to answer what it was asked."""
        return bool(_FILTERED.search(self.code)) or (bool(_FILTERED.search(self.message)) and not self.quotes(messages))

    def shown(self, messages: Messages) -> str:
        """The message in short, and nothing of it if it quotes the prompt."""
        if self.quotes(messages):
            return "the server's message quotes the prompt"
        return " ".join(self.message.split())[:_SHOWN] or "the server says nothing more"

    def answer(self, messages: Messages) -> ChatAnswer:
        """The error row of a request that a server refuses: final where that is the request's fault, else of the moment.

        A refusal is the request's fault where it is too long or filtered. Of others nobody knows: the server may be mended by the next run.
        """
        is_filtered = self.is_filtered(messages)
        reason = "prompt_too_long" if self.is_too_long else "content_filter" if is_filtered else f"http_{self.status}"
        error = f"{reason}: {self.shown(messages)}"
        return ChatAnswer(None, error, None, 0, 0, is_retryable=not (self.is_too_long or is_filtered))


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
