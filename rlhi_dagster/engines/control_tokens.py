"""Control tokens of one tokenizer that stand in messages: they become ordinary text before the chat template has them.

What belongs here: what a tokenizer's control tokens are, however they are called. What does not: the spellings that are known without a
tokenizer, and why a space makes text of them (``base/control_tokens.py``). Importing it loads no model library.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rlhi_dagster.base import control_tokens
from rlhi_dagster.engines.base import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PASSES = 3
"""Of a tokenizer that normalises: what it normalises could still make a token of what was taken apart."""


@functools.lru_cache(maxsize=8)
def control_tokens_of(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """Those of a tokenizer, found once."""
    return ControlTokens(tokenizer)


class ControlTokens:
    """What may not come of a message's text: special tokens, and further ones of the tokenizer's own that its chat template writes."""

    def __init__(self, tokenizer: Any) -> None:
        template = str(getattr(tokenizer, "chat_template", None) or "")
        added = {number: each for number, each in getattr(tokenizer, "added_tokens_decoder", {}).items() if each.content.strip(" \t\r\n")}
        found = {number: each for number, each in added.items() if each.special or _is_written(each.content, template)}
        self._texts = {each.content for each in found.values()}
        self._lengths = sorted({len(text) for text in self._texts}, reverse=True)
        self._starts = re.compile(f"[{''.join(re.escape(first) for first in {text[0] for text in self._texts})}]" if found else "(?!)")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        may_come = any(each.normalized or each.content.isalnum() for each in found.values())  # of what the tokenizer normalises
        normalises = may_come and backend is not None and backend.normalizer is not None
        self._backend = backend if normalises else None
        self._ids = found.keys() - {tokenizer.unk_token_id} if normalises else set[int]()

    def text(self, text: str) -> str:
        """Text of which the tokenizer makes no control token; what has none stays as it is."""
        apart = self._apart(control_tokens.escaped(text))
        for _ in range(_PASSES):
            if not (starts := self._found(apart)):
                break
            ends = [0, *(start + 1 for start in starts), len(apart)]
            apart = " ".join(apart[begin:end] for begin, end in pairwise(ends))
        return apart

    def messages(self, messages: Sequence[Mapping[str, str]]) -> Messages:
        """Messages with such text."""
        return [{**message, "content": self.text(message["content"])} for message in messages]

    def pair(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of ``pair_sets.TRAINING_ROWS`` with such text."""
        sides = {side: row[side] if row[side] is None else self.text(row[side]) for side in ("chosen", "rejected")}
        asked = {name: self.messages(row[name]) for name in ("prompt", "told") if name in row}
        return {**row, **asked, **sides}

    def _apart(self, text: str) -> str:
        def apart(first: re.Match[str]) -> str:
            at = first.start()
            length = next((length for length in self._lengths if text[at : at + length] in self._texts), 0)
            return first[0] if not length else f"{first[0]} " if length > 1 else " "

        return self._starts.sub(apart, text)

    def _found(self, text: str) -> list[int]:
        """Where the text, normalised, still has control tokens."""
        if self._backend is None:
            return []
        encoded = self._backend.encode(text, add_special_tokens=False)
        spans = zip(encoded.ids, encoded.offsets, strict=True)
        return sorted(start for number, (start, end) in spans if number in self._ids and end > start)


def _is_written(content: str, template: str) -> bool:
    """Whether a token that is not special stands in the template as a mark; a word there is a word in messages, too."""
    return not content[0].isalnum() and content in template
