"""What carries loss in the batches that a trainer's own collator makes: checked for every row before training, and one pair for reading.

What belongs here: reading the masks of batches. What does not: the rule that they have to keep (``training/loss_mask.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from rlhi_dagster.engines.control_tokens import control_tokens_of
from rlhi_dagster.training.loss_mask import Marked, ReplyLayout, fault, text
from rlhi_dagster.training.pair_sets import SIDES

_SLICE_ROWS = 64
_IGNORED = -100


class MaskError(ValueError):
    """A pair whose loss would not lie on its replies alone; the message names the pair and shows no text."""


def check(name: str, trainer: Any, tokenizer: PreTrainedTokenizerBase, **rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Compare what carries loss with the replies, in every row that ``trainer`` trains and is tried on.

    Args:
        name: Of the artefact.
        trainer: TRL's trainer of the SFT, DPO or KTO method, or one that reads rows as SFT does.
        tokenizer: The model's.
        **rows: The pairs behind the trainer's ``train`` and ``validation`` rows, in order; no set without a row.

    Returns:
        Of each set its ``rows``, ``tokens`` and ``loss_tokens``.

    Raises:
        MaskError: A row breaks the rule.
    """
    data = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    try:
        layout = reply_layout(tokenizer)
        return {split: _counted(trainer.data_collator, data[split], pairs, tokenizer, layout) for split, pairs in rows.items() if pairs}
    except ValueError as error:
        raise MaskError(f"{name}: {error}") from error


def reply_layout(tokenizer: PreTrainedTokenizerBase) -> ReplyLayout:
    """How the chat template of ``tokenizer`` writes a reply."""

    def render(reply: str) -> str:
        said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": reply}]
        return str(tokenizer.apply_chat_template(said, tokenize=False))

    return ReplyLayout.of(render)


def example(method: str, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, in_colour: bool) -> str:
    """One pair as the trainer of ``method`` gives it to a model: its sides, token by token.

    TRL's trainer renders and collates it; a model of a few weights stands in for the real one, which need not be loaded.
    """
    with TemporaryDirectory() as folder:
        trainer = _stand_in(method, control_tokens_of(tokenizer).pair(row), tokenizer, folder)
        sequences = _sequences(trainer.data_collator([trainer.train_dataset[0]]))
    decode = _decoder(tokenizer)
    headed = zip(_sides(row), sequences, strict=False)
    return "\n\n".join(
        f"{side}: {len(seen.ids)} tokens, {len(seen.learnt)} with loss\n{text(seen, decode, in_colour=in_colour)}" for side, seen in headed
    )


def _counted(
    collate: Callable[[list[Any]], Mapping[str, torch.Tensor]],
    data: Dataset,
    pairs: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    layout: ReplyLayout,
) -> dict[str, int]:
    counts = {"rows": 0, "tokens": 0, "loss_tokens": 0}
    for start in range(0, len(pairs), _SLICE_ROWS):
        part = pairs[start : start + _SLICE_ROWS]
        sequences = _sequences(collate([data[start + offset] for offset in range(len(part))]))
        _check_part(part, sequences, tokenizer, layout)
        counts["rows"] += len(part)
        counts["tokens"] += sum(len(seen.ids) for seen in sequences)
        counts["loss_tokens"] += sum(len(seen.learnt) for seen in sequences)
    return counts


def _check_part(
    pairs: Sequence[Mapping[str, Any]], sequences: Sequence[Marked], tokenizer: PreTrainedTokenizerBase, layout: ReplyLayout
) -> None:
    """Raise ValueError at the first row that breaks the rule; ``sequences`` are the preferred sides, then any dispreferred ones."""
    decode = _decoder(tokenizer)
    asked = tokenizer.apply_chat_template([pair["prompt"] for pair in pairs], add_generation_prompt=True, return_dict=True)["input_ids"]
    for number, seen in enumerate(sequences):
        pair = pairs[number % len(pairs)]
        side = _sides(pair)[number // len(pairs)]
        written = layout.written(pair[side])
        found = fault(seen, asked[number % len(pairs)], written, decode, lambda said: tokenizer.encode(said, add_special_tokens=False))
        if found:
            raise ValueError(f"pair {pair['pair_id']}, {side} reply: {found}")


def _sides(row: Mapping[str, Any]) -> list[str]:
    """The sides that a row has: both of a pair, one of an unpaired example."""
    return [side for side in SIDES if row[side] is not None]


def _sequences(batch: Mapping[str, torch.Tensor]) -> list[Marked]:
    """A batch's rows; padding that carries loss stays in, so that it is found."""
    has_loss = batch["completion_mask"].bool() if "completion_mask" in batch else batch["labels"] != _IGNORED
    stays = batch["attention_mask"].bool() | has_loss
    rows = zip(batch["input_ids"], has_loss, stays, strict=True)
    return [Marked(ids[kept].tolist(), learnt[kept].tolist()) for ids, learnt, kept in rows]


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], str]:
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _stand_in(method: str, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, folder: str) -> Any:
    """TRL's trainer of a method on one pair, with a tiny random model."""
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    said = {side: [{"role": "assistant", "content": row[side]}] for side in _sides(row)}
    how: dict[str, Any] = {"output_dir": folder, "max_length": None, "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True}
    model, reference = LlamaForCausalLM(shape), LlamaForCausalLM(shape)
    if method == "dpo":
        data = Dataset.from_list([{"prompt": row["prompt"], **said}])
        return DPOTrainer(model=model, ref_model=reference, args=DPOConfig(**how), train_dataset=data, processing_class=tokenizer)
    if method == "kto":
        ((side, completion),) = said.items()
        data = Dataset.from_list([{"prompt": row["prompt"], "completion": completion, "label": side == "chosen"}])
        return KTOTrainer(model=model, ref_model=reference, args=KTOConfig(**how), train_dataset=data, processing_class=tokenizer)
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": said["chosen"]}])
    return SFTTrainer(model=model, args=SFTConfig(**how), train_dataset=data, processing_class=tokenizer)
