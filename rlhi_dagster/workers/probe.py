"""Replies sampled from the policy while it trains: how far it is from its start, and how many replies are broken text.

What belongs here: sampling and measuring inside a training process. What does not: when (``watch.py``) and what broken text is
(``base/text_health.py``).

The divergence is KL(policy || start) of whole replies to held-out users, cut at the longest reply: replies are drawn from the policy, and
along each the divergence between the two next-token distributions is summed. That is the log-ratio log p_policy(reply) - log p_start(reply)
with each token's term replaced by its expectation: the same mean, never negative, and with less spread (Amini, Vieira and Cotterell, 2025,
"Better estimation of the KL divergence between language models").

Every process draws the same replies, in step, so it is right where each holds only a share of the weights. Random numbers come from a
generator of its own, the same at every snapshot: training is not disturbed, and what differs between snapshots is the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import torch
from accelerate.utils import broadcast
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer

from rlhi_dagster.base import text_health
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.workers.tokens import Conversation, token_counts

_SEED = 1
_MOST_TOKENS = 16_384
"""Tokens that are kept in attention caches at once, prompts and replies."""
_MOST_CELLS = 2**26
"""Next-token probabilities that are held at once, for each of the two models."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A group of prompts with their replies.

    Attributes:
        tokens: ``[rows, prompt + reply]``, prompts padded on the left, replies on the right.
        attends: 1 for tokens, 0 for padding; same shape.
        counts: 1 for the reply's tokens, its end included; ``[rows, reply]``.
        has_ended: Whether the model ended the reply itself, by row.
    """

    tokens: Tensor
    attends: Tensor
    counts: Tensor
    has_ended: list[bool]


def prompts_for(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, most_tokens: int, count: int
) -> list[Conversation]:
    """Up to ``count`` different prompts of at most ``most_tokens`` tokens, in an order that depends on nothing but themselves."""
    distinct = {digest_of("probe", prompt): prompt for prompt in conversations}
    ordered = [distinct[key] for key in sorted(distinct)]
    lengths = token_counts(ordered, tokenizer, add_generation_prompt=True)
    return [prompt for prompt, length in zip(ordered, lengths, strict=True) if length <= most_tokens][:count]


class Probe:
    """Samples replies to fixed prompts from a trainer's model and measures them.

    Args:
        trainer: Trains the policy.
        tokenizer: Its tokenizer.
        prompts: From `prompts_for`, at least one; with a reply they fit the model's context.
        reply_tokens: Most tokens of a reply.
        start: Gives the model that training starts from, frozen. It is not called before the first probe, and never where adapters are
            trained: without them the model is its start.
        is_cut: Replies may be longer than ``reply_tokens`` elsewhere: one that does not end is cut here, not broken.
    """

    def __init__(
        self,
        trainer: Trainer,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Conversation],
        reply_tokens: int,
        start: Callable[[], Any],
        *,
        is_cut: bool = False,
    ) -> None:
        self.trainer, self.tokenizer, self.reply_tokens, self._start = trainer, tokenizer, reply_tokens, start
        self.prompts, self._is_cut = [*prompts], is_cut
        if not self.prompts:
            raise ValueError("a probe needs a prompt")

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Measurements of the policy as it stands.

        Returns:
            ``kl``, mean nats a reply, with its standard error ``kl_error``; ``samples``, how many replies; ``samples_malformed``, the share
            that is broken text, and of each flaw ``samples_malformed/<flaw>``; ``sample_tokens``, the mean length of a reply.
        """
        divergences: list[float] = []
        lengths: list[float] = []
        replies: list[tuple[str, str, bool]] = []
        generator = torch.Generator(self.trainer.args.device).manual_seed(_SEED)
        with _evaluating(self.trainer.model) as policy:
            for group in self._groups():
                drawn = self._draw(policy, group, generator)
                divergences += self._divergences(policy, drawn)
                lengths += drawn.counts.sum(1).tolist()
                replies += self._texts(group, drawn)
        found = text_health.flaws(replies)
        return {
            "kl": fmean(divergences),
            "kl_error": stdev(divergences) / sqrt(len(divergences)) if len(divergences) > 1 else 0.0,
            "samples": float(len(replies)),
            "samples_malformed": sum(found.values()) / len(replies),
            **{f"samples_malformed/{kind}": share / len(replies) for kind, share in found.items()},
            "sample_tokens": fmean(lengths),
        }

    def _groups(self) -> Iterator[list[Conversation]]:
        """Prompts in order, as many at once as ``_MOST_TOKENS`` allow, padding counted."""
        group, widest = list[Conversation](), 0
        for prompt, ids in zip(self.prompts, self._ids(self.prompts), strict=True):
            width = max(widest, len(ids) + self.reply_tokens)
            if group and width * (len(group) + 1) > _MOST_TOKENS:
                yield group
                group, width = [], len(ids) + self.reply_tokens
            group, widest = [*group, prompt], width
        yield group

    def _ids(self, prompts: Sequence[Conversation]) -> list[list[int]]:
        rendered = self.tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, return_dict=True)
        return [list(ids) for ids in rendered["input_ids"]]

    def _draw(self, policy: Any, prompts: Sequence[Conversation], generator: torch.Generator) -> _Drawn:
        device, pad, ends = self.trainer.args.device, self.tokenizer.pad_token_id, self._ends(policy)
        ids = self._ids(prompts)
        width = max(map(len, ids))
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
        attends = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
        fed, cache = tokens, None
        running = torch.ones(len(ids), dtype=torch.bool, device=device)
        counted = []
        for _ in range(self.reply_tokens):
            out = policy(
                input_ids=fed,
                attention_mask=attends,
                position_ids=_positions(attends)[:, -fed.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            picked = torch.multinomial(out.logits[:, -1].float().softmax(-1), 1, generator=generator)
            if self.trainer.accelerator.num_processes > 1:
                picked = broadcast(picked)
            fed, cache = torch.where(running[:, None], picked, pad), out.past_key_values
            counted.append(running.long())
            tokens, attends = torch.cat([tokens, fed], 1), torch.cat([attends, running.long()[:, None]], 1)
            running = running & ~torch.isin(fed[:, 0], ends)
            if not running.any():
                break
        return _Drawn(tokens, attends, torch.stack(counted, 1), (~running).tolist())

    def _divergences(self, policy: Any, drawn: _Drawn) -> list[float]:
        """KL(policy || start) of each reply: the next-token divergences along it, summed."""
        adapted = isinstance(policy, PeftModel)
        cells = drawn.counts.shape[1] * int(policy.config.get_text_config().vocab_size)
        size = max(1, _MOST_CELLS // cells)
        found: list[float] = []
        for first in range(0, len(drawn.tokens), size):
            part = slice(first, first + size)
            tokens, attends, counts = drawn.tokens[part], drawn.attends[part], drawn.counts[part]
            now = _log_probabilities(policy, tokens, attends, counts.shape[1])
            without: AbstractContextManager[Any] = policy.disable_adapter() if adapted else nullcontext()
            with without:
                then = _log_probabilities(policy if adapted else self._start(), tokens, attends, counts.shape[1])
            found += ((now.exp() * (now - then)).sum(-1) * counts).sum(1).tolist()
        return found

    def _texts(self, prompts: Sequence[Conversation], drawn: _Drawn) -> list[tuple[str, str, bool]]:
        """(prompt, reply, has ended) for `text_health.flaws`."""
        width = drawn.tokens.shape[1] - drawn.counts.shape[1]
        rows = zip(prompts, drawn.tokens[:, width:].tolist(), drawn.counts.sum(1).tolist(), drawn.has_ended, strict=True)
        return [
            (
                prompt[-1]["content"],
                str(self.tokenizer.decode(row[: length - has_ended], skip_special_tokens=True)),
                has_ended or self._is_cut,
            )
            for prompt, row, length, has_ended in rows
        ]

    def _ends(self, policy: Any) -> Tensor:
        """Tokens that end a reply."""
        named = policy.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
        return torch.tensor(sorted(ends), device=self.trainer.args.device)


def _positions(attends: Tensor) -> Tensor:
    return (attends.cumsum(-1) - 1).clamp(min=0)


def _log_probabilities(model: Any, tokens: Tensor, attends: Tensor, last: int) -> Tensor:
    """Log-probabilities of every token at the last ``last`` positions: ``[rows, last, vocabulary]``."""
    out = model(input_ids=tokens, attention_mask=attends, position_ids=_positions(attends), use_cache=False, logits_to_keep=last + 1)
    return out.logits[:, -last - 1 : -1].float().log_softmax(-1)


@contextmanager
def _evaluating(model: Any) -> Iterator[Any]:
    """The model without dropout; afterwards in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(was_training)
