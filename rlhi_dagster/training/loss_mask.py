"""Which tokens of a pair carry loss: the reply and the marker that ends it, and nothing of persona, history or request.

What belongs here: the rule, and how a pair is written for reading, token by token. What does not: the trainers' batches
(``workers/mask_check.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rlhi_dagster.base.escapes import visible

_LOSS, _OTHER, _PLAIN = "\x1b[30;42m", "\x1b[2m", "\x1b[0m"
_PARTIAL = "\ufffd"
"""What a token decodes to that is only a part of a character."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A sequence as the trainer's collator makes it, without its padding.

    Attributes:
        ids: Tokens.
        has_loss: Of each, whether it carries loss.
    """

    ids: list[int]
    has_loss: list[bool]

    @property
    def masked(self) -> list[int]:
        """The tokens that carry none."""
        return [token for token, learnt in zip(self.ids, self.has_loss, strict=True) if not learnt]

    @property
    def learnt(self) -> list[int]:
        """The tokens that carry loss."""
        return [token for token, learnt in zip(self.ids, self.has_loss, strict=True) if learnt]


@dataclass(frozen=True, slots=True)
class ReplyLayout:
    """How a chat template writes a reply.

    Attributes:
        end: What follows it: the end-of-turn marker.
        trims_start: White space before the reply is left out.
        trims_end: White space after it is left out.
    """

    end: str
    trims_start: bool
    trims_end: bool

    @classmethod
    def of(cls, render: Callable[[str], str]) -> ReplyLayout:
        """Learn the layout from what ``render`` makes of a conversation that ends with a reply.

        Raises:
            ValueError: The template leaves replies out, or ends them by nothing, so that a model cannot learn to stop.
        """
        word = "Fjord"
        before, found, end = render(word).rpartition(word)
        padded_before, _, padded_end = render(f" {word} ").rpartition(word)
        if not found or not end:
            raise ValueError(f"the chat template {'ends replies by no marker' if found else 'leaves replies out'}")
        return cls(end, padded_before == before, padded_end == end)

    def written(self, reply: str) -> str:
        """A reply and its end-of-turn marker."""
        shown = reply.lstrip() if self.trims_start else reply
        return (shown.rstrip() if self.trims_end else shown) + self.end


def fault(
    seen: Marked, prompt: Sequence[int], written: str, decode: Callable[[Sequence[int]], str], encode: Callable[[str], Sequence[int]]
) -> str | None:
    """What is wrong with the mask of a sequence; ``None`` if nothing is.

    Args:
        seen: The sequence as it is trained on.
        prompt: Tokens that the model is asked with for a reply.
        written: The reply and its end-of-turn marker.
        decode: Tokens as text, special ones too.
        encode: Text as tokens, without any that the text does not have.
    """
    spans = [learnt for learnt, _ in groupby(seen.has_loss)]
    if True not in spans:
        return "no token carries loss"
    if spans != [False, True]:
        return "tokens carry loss elsewhere than at the end of the sequence"
    found = decode(seen.learnt)
    # Where a tokenizer normalises text, what it makes of the reply is what counts.
    if found != written and found != decode(encode(written)):
        return "the tokens that carry loss are not the reply and its end-of-turn marker"
    if list(seen.masked) != list(prompt):
        return "the reply follows another prompt than the one that the model is asked with"
    return None


def text(seen: Marked, decode: Callable[[Sequence[int]], str], *, in_colour: bool) -> str:
    """A sequence for reading: tokens that carry loss on green or in brackets, the others dim or parted by bars."""
    parts = []
    for learnt, group in groupby(zip(seen.ids, seen.has_loss, strict=True), key=lambda pair: pair[1]):
        pieces = [visible(piece).replace("\n", "⏎\n") for piece in _pieces([token for token, _ in group], decode)]
        if in_colour:
            style = _LOSS if learnt else _OTHER
            parts.append("".join(f"{style}{piece}{_PLAIN}" + ("·" if learnt else "") for piece in pieces))
        else:
            parts.append("".join(f"[{piece}]" for piece in pieces) if learnt else "|".join(pieces))
    return "".join(parts)


def _pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """The text of each token; tokens that only together make a character come together."""
    start = 0
    for end in range(1, len(ids) + 1):
        piece = decode(ids[start:end])
        if not piece.endswith(_PARTIAL) or end == len(ids):
            yield piece
            start = end
