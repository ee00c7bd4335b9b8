"""Worker: count the tokens of preference pairs as they are shown in training. Loads a tokenizer and no weights.

Job (Pipes extras): ``model`` (``ModelRef``), ``rows`` (Parquet of ``key``, ``prompt`` with the persona where the recipe shows it,
``chosen``, ``rejected``) and ``out``, the Parquet file of ``training.budget.PAIR_TOKENS`` to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.engines.control_tokens import control_tokens_of
from rlhi_dagster.training.budget import PAIR_TOKENS
from rlhi_dagster.training.pair_sets import SIDES
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SLICE_ROWS = 256

Conversation = list[dict[str, str]]


def replied(prompt: Conversation, reply: str) -> Conversation:
    """The prompt with a reply."""
    return [*prompt, {"role": "assistant", "content": reply}]


def conversations(row: Mapping[str, Any]) -> list[Conversation]:
    """The whole conversations of a training row: two of a pair, one of an unpaired example, and what a teacher is told of it."""
    asked = [row[name] for name in ("prompt", "told") if row.get(name) is not None]
    return [replied(prompt, row[side]) for prompt in asked for side in SIDES if row[side] is not None]


def token_counts(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool = False
) -> list[int]:
    """Tokens of each conversation in the chat template, as the trainers see it."""
    if not conversations:
        return []
    said = [control_tokens_of(tokenizer).messages(conversation) for conversation in conversations]
    rendered = tokenizer.apply_chat_template(said, add_generation_prompt=add_generation_prompt, return_dict=True)
    return [len(ids) for ids in rendered["input_ids"]]


def count(
    rows: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, report: Callable[[int, int], object] = lambda done, total: None
) -> pl.DataFrame:
    """``PAIR_TOKENS`` of the rows.

    Args:
        rows: ``key``, ``prompt``, ``chosen`` and ``rejected``.
        tokenizer: Of the model that is trained.
        report: Called with how many rows are done and how many there are.
    """
    parts = [PAIR_TOKENS.to_frame()]
    done = 0
    for part in rows.iter_slices(_SLICE_ROWS):
        pairs: list[dict[str, Any]] = part.to_dicts()
        prompts = [row["prompt"] for row in pairs]
        sides = {side: _side_counts(pairs, side, tokenizer) for side in SIDES}
        opened = token_counts(prompts, tokenizer, add_generation_prompt=True)
        counted = [part["key"], opened, sides["chosen"], sides["rejected"]]
        parts.append(pl.DataFrame(dict(zip(PAIR_TOKENS, counted, strict=True)), schema=PAIR_TOKENS))
        done += len(part)
        report(done, len(rows))
    return pl.concat(parts)


def _side_counts(pairs: Sequence[dict[str, Any]], side: str, tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """Tokens of one side with its prompt; ``None`` where there is none."""
    counts = iter(token_counts([replied(row["prompt"], row[side]) for row in pairs if row[side] is not None], tokenizer))
    return [None if row[side] is None else next(counts) for row in pairs]


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        from rlhi_dagster.base import seals
        from rlhi_dagster.base.progress import Progress
        from rlhi_dagster.engines.chat_templates import load_tokenizer
        from rlhi_dagster.engines.models import ModelRef
        from rlhi_dagster.engines.unavailable import loading

        job = pipes.extras
        model, out = ModelRef(**job["model"]), Path(job["out"])
        with loading(model, "models.policy"):
            tokenizer = load_tokenizer(model)
        found = count(pl.read_parquet(job["rows"]), tokenizer, Progress(pipes.log.info, "counting tokens"))
        seals.write(out, found)


if __name__ == "__main__":
    main()
