"""What a chat engine and a reward engine are: requests in, one answer per request out, errors as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

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
        messages: The conversation; the reply comes after it.
        sample_index: Tells repeated samples of the same messages apart.
        choices: If given, the reply is one of these; they begin with different tokens, as single letters do.
    """

    messages: Messages
    sample_index: int = 0
    choices: tuple[str, ...] = ()

    def key(self, model: ModelRef, sampling: Sampling) -> str:
        """Digest of everything that determines the answer."""
        constrained = (self.choices,) if self.choices else ()
        return digest_of("chat", model.name, model.revision, self.messages, self.sample_index, asdict(sampling), *constrained)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A reply, or the reason why there is none.

    Attributes:
        text: The reply.
        error: The reason.
        finish_reason: `stop`, or `length` where the reply reached its limit.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        probabilities: Where the request has choices: the model's probability of each among them, at temperature 1.
    """

    text: str | None
    error: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    probabilities: list[float] | None = None


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

    def key(self, model: ModelRef) -> str:
        """Digest of everything that determines the reward."""
        return digest_of("reward", model.name, model.revision, self.messages)


@dataclass(frozen=True, slots=True)
class RewardAnswer:
    """A reward, or the reason why there is none."""

    reward: float | None
    error: str | None
    prompt_tokens: int


class ChatEngine(Protocol):
    """Answers chat requests with one loaded model."""

    def generate(self, requests: Sequence[ChatRequest], keys: Sequence[str], sampling: Sampling) -> list[ChatAnswer]:
        """One answer per request, in order; ``keys`` (of the same length) seed the sampling of each."""
        ...


class RewardEngine(Protocol):
    """Scores conversations with one loaded reward model."""

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardAnswer]:
        """One answer per request, in order."""
        ...
