"""WildLlamaChat: user messages kept, assistant replies regenerated turn by turn on the regenerated history.

Turn by turn is our choice; the paper does not say.

Also whether a kept follow-up still fits the regenerated reply: the user criticised another text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, Messages
from rlhi_dagster.tables import WILDLLAMACHAT

Applies = Callable[[str, str, str], bool | None]
"""Whether a follow-up (first) applies to a regenerated reply (second), given the logged reply (third); ``None`` if that cannot be told."""


def user_messages(turns: pl.DataFrame) -> dict[str, list[str]]:
    """The user's messages of each conversation in ``turns``, in order."""
    ordered = turns.sort("conversation_id", "turn").group_by("conversation_id", maintain_order=True).agg("prompt")
    return dict(zip(ordered["conversation_id"].to_list(), ordered["prompt"].to_list(), strict=True))


def wildllamachat(turns: pl.DataFrame, answers: Mapping[str, Sequence[ChatAnswer]], model: str, applies: Applies) -> pl.DataFrame:
    """Put the regenerated replies beside the logged ones.

    Args:
        turns: ``TURNS`` of whole conversations.
        answers: One answer per turn, by conversation.
        model: Identity of the model that answered.
        applies: See ``Applies``.

    Returns:
        ``WILDLLAMACHAT``, one row a turn.
    """
    rows = []
    for (conversation_id,), group in turns.sort("conversation_id", "turn").group_by("conversation_id", maintain_order=True):
        history: Messages = []
        said = group.to_dicts()
        for position, (turn, answer) in enumerate(zip(said, answers[str(conversation_id)], strict=True)):
            follow_up = said[position + 1] if position + 1 < len(said) else None
            fits = applies(follow_up["prompt"], answer.text, turn["reply"]) if follow_up and answer.text is not None else None
            rows.append(
                {
                    **{name: turn[name] for name in ("turn_id", "conversation_id", "user_id", "month", "turn", "asked_at", "prompt")},
                    "history": list(history),
                    "logged_reply": turn["reply"],
                    "reply": answer.text,
                    "error": answer.error,
                    "model": model,
                    "follow_up_id": follow_up["turn_id"] if follow_up else None,
                    "follow_up_applies": fits,
                }
            )
            history += [{"role": "user", "content": turn["prompt"]}, {"role": "assistant", "content": answer.text or ""}]
    return WILDLLAMACHAT.conform(pl.DataFrame(rows, schema=WILDLLAMACHAT.schema))
