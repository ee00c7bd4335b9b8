"""What a chat engine and a reward engine are: requests in, one answer per request out, errors as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from rlhi_dagster.base.control_tokens import escaped_messages
from rlhi_dagster.engines.models import ModelRef, digest_of

Messages = list[dict[str, str]]
"""A conversation: dictionaries with ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn. The paper: T = 0.6, top-p = 0.9.

    Attributes:
        temperature: 0 means greedy.
        top_p: Nucleus mass.
        max_new_tokens: Longest reply; a reply that reaches it ends with ``finish_reason`` ``length``.
        seed: Together with the request's content and ``sample_index``, the only source of randomness.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One reply wanted.

    Attributes:
        messages: The conversation; the reply comes after it. Models see it with control tokens as text.
        sample_index: Tells repeated samples of the same messages apart.
        choices: If given, the reply is one of these; they begin with different tokens, as single letters do.
        json_schema: If given, a JSON schema as JSON text, and the reply is JSON that is valid under it.
    """

    messages: Messages
    sample_index: int = 0
    choices: tuple[str, ...] = ()
    json_schema: str | None = None

    def draw(self, model: ModelRef, sampling: Sampling) -> str:
        """Digest of what the model is asked and how; seeds the sampling, so that the same engine draws the same reply."""
        constraint = (self.choices,) if self.choices else ()
        schema = (json.loads(self.json_schema),) if self.json_schema else ()
        said = escaped_messages(self.messages)
        return digest_of("chat", model.name, model.revision, said, self.sample_index, asdict(sampling), *constraint, *schema)

    def seed(self, model: ModelRef, sampling: Sampling) -> int:
        """Seed below 2**31 for engines that count up from the first sample's: samples of the same messages have consecutive seeds."""
        first = replace(self, sample_index=0)
        return (int(first.draw(model, sampling)[:8], 16) + self.sample_index) % 2**31

    def key(self, model: ModelRef, sampling: Sampling, engine: str) -> str:
        """Digest of everything that determines the answer; ``engine`` is the ``identity`` of the engine's settings."""
        return digest_of(self.draw(model, sampling), engine)

    def settings(self, sampling: Sampling, engine: str) -> str:
        """What of the key is neither model nor messages nor sample index, as JSON: what ``rlhi store explain`` compares."""
        given: dict[str, Any] = {"engine": engine, **asdict(sampling)}
        given |= {"choices": self.choices} if self.choices else {}
        given |= {"json_schema": json.loads(self.json_schema)} if self.json_schema else {}
        return json.dumps(given, sort_keys=True)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A reply, or the reason why there is none.

    Attributes:
        text: The reply.
        error: The reason: a word, a colon, and what a person needs to know. Never a prompt's or reply's text.
        finish_reason: `stop`, or `length` where the reply reached its limit.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens written.
        probabilities: Where the request has choices: the model's probability of each among them, at temperature 1.
        cached_tokens: Those of the prompt's tokens that the engine's prefix cache had.
        cost_usd: What a server charged for it; 0 where nobody charges by token.
        is_retryable: The error is of the moment (a time-out, a busy server): the next run asks again.
        call_id: Key in the response store; empty until it is read from there.
        is_estimated: The server did not count all tokens, so that some, and the cost, are estimates. Told as it is answered, and not kept.
    """

    text: str | None
    error: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    probabilities: list[float] | None = None
    cached_tokens: int = 0
    cost_usd: float = 0.0
    is_retryable: bool = False
    call_id: str = ""
    is_estimated: bool = False

    @property
    def failure(self) -> str | None:
        """Why there is no whole reply: the error, or that the reply was cut at its limit; ``None`` if there is one."""
        return "cut_off_at_max_new_tokens" if self.finish_reason == "length" else self.error


def too_long(request: ChatRequest, prompt_tokens: int, sampling: Sampling, context: int) -> ChatAnswer | None:
    """The error row of a prompt that leaves no room for the reply in ``context`` tokens; ``None`` if it fits. A choice is one token."""
    room = 1 if request.choices else sampling.max_new_tokens
    if prompt_tokens + room <= context:
        return None
    error = f"prompt_too_long: {prompt_tokens} prompt + {room} new tokens, context {context}"
    return ChatAnswer(None, error, None, prompt_tokens, 0)


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """One reward wanted: the conversation, ending with the reply to judge."""

    messages: Messages

    def key(self, model: ModelRef, engine: str) -> str:
        """Digest of everything that determines the reward; ``engine`` is the ``identity`` of the engine's settings."""
        return digest_of("reward", model.name, model.revision, escaped_messages(self.messages), engine)

    def settings(self, engine: str) -> str:
        """See ``ChatRequest.settings``."""
        return json.dumps({"engine": engine})


@dataclass(frozen=True, slots=True)
class RewardAnswer:
    """A reward, or the reason why there is none; attributes as of ``ChatAnswer``."""

    reward: float | None
    error: str | None
    prompt_tokens: int
    cached_tokens: int = 0
    is_retryable: bool = False
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """What of a request's messages the store remembers: digests that tell which part of two requests differs, and no text.

    Attributes:
        system_id: Of the system message (the persona); of nothing if there is none.
        history_id: Of the messages between it and the last one.
        message_id: Of the last message.
        sample_index: Of the request.
        prompt_characters: Length of all messages together.
    """

    system_id: int
    history_id: int
    message_id: int
    sample_index: int
    prompt_characters: int


def trace(request: ChatRequest | RewardRequest) -> Trace:
    """Digest the parts of a request's messages."""
    messages = request.messages
    system = messages[:1] if messages and messages[0]["role"] == "system" else []
    return Trace(
        system_id=_short(system),
        history_id=_short(messages[len(system) : -1]),
        message_id=_short(messages[-1:]),
        sample_index=request.sample_index if isinstance(request, ChatRequest) else 0,
        prompt_characters=characters(messages),
    )


def characters(messages: Messages) -> int:
    """Characters of all messages together."""
    return sum(len(message["content"]) for message in messages)


def _short(messages: Messages) -> int:
    text = json.dumps([(each["role"], each["content"]) for each in messages])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


ChatCall = tuple[str, ChatRequest]
"""A key and its request."""
ChatCalls = Iterator[ChatCall]
RewardCalls = Iterator[tuple[str, RewardRequest]]


class ChatEngine(Protocol):
    """Answers chat requests with one loaded model."""

    def answer(self, calls: ChatCalls, sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """Answer every call once.

        Takes calls only as it has room for them, so that whoever feeds it can stop; requests that share a prefix, and samples of
        the same messages, come one after the other.

        Yields:
            Keys and answers that have been finished since the last time, in any order. A request that cannot be answered is an
            error row and stops no other.
        """
        ...


class RewardEngine(Protocol):
    """Scores conversations with one loaded reward model."""

    def score(self, calls: RewardCalls) -> Iterator[list[tuple[str, RewardAnswer]]]:
        """Score every call once; see ``ChatEngine.answer``. A conversation beyond the context is an error row, never cut."""
        ...
