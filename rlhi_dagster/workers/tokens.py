"""Worker: count the tokens of preference pairs as they are shown in training. Loads a tokenizer and no weights.

Job (Pipes extras): ``model`` (``ModelRef``), ``rows`` (Parquet of ``key``, ``prompt`` with the persona where the recipe shows it,
``chosen``, ``rejected``) and ``out``, the Parquet file of ``training.budget.PAIR_TOKENS`` to write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.training.budget import PAIR_TOKENS
from rlhi_dagster.workers.expected import told

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SLICE_ROWS = 256

Conversation = list[dict[str, str]]


def replied(prompt: Conversation, reply: str) -> Conversation:
    """The prompt with a reply."""
    return [*prompt, {"role": "assistant", "content": reply}]


def token_counts(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool = False
) -> list[int]:
    """Tokens of each conversation in the chat template, as the trainers see it."""
    if not conversations:
        return []
    rendered = tokenizer.apply_chat_template(list(conversations), add_generation_prompt=add_generation_prompt, return_dict=True)
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
        sides = {side: token_counts([replied(row["prompt"], row[side]) for row in pairs], tokenizer) for side in ("chosen", "rejected")}
        opened = token_counts(prompts, tokenizer, add_generation_prompt=True)
        counted = [part["key"], opened, sides["chosen"], sides["rejected"]]
        parts.append(pl.DataFrame(dict(zip(PAIR_TOKENS, counted, strict=True)), schema=PAIR_TOKENS))
        done += len(part)
        report(done, len(rows))
    return pl.concat(parts)


def main() -> None:
    """Run the job that Pipes hands over."""
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        from rlhi_dagster.base.progress import Progress
        from rlhi_dagster.engines.chat_templates import load_tokenizer
        from rlhi_dagster.engines.models import ModelRef
        from rlhi_dagster.engines.unavailable import loading

        job = pipes.extras
        model, out = ModelRef(**job["model"]), Path(job["out"])
        with loading(model, "models.policy"):
            tokenizer = load_tokenizer(model)
        found = count(pl.read_parquet(job["rows"]), tokenizer, Progress(pipes.log.info, "counting tokens"))
        partial = out.with_suffix(".partial")
        found.write_parquet(partial, compression="zstd")
        partial.replace(out)


if __name__ == "__main__":
    main()
