"""Worker: train the town's policy from scratch: a byte-level BPE tokenizer, a Llama-style chat template and a small Llama.

Job (Pipes extras): ``jobs``, a list of ``TrainingJob`` whose rows are Parquet of ``messages`` and whose ``extra`` is a ``TownPolicy``. The
loss counts every token, users' included: a model of conversations before it is anybody's assistant. Reports one custom message per job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

from rlhi_dagster.engines.control_tokens import control_tokens_of
from rlhi_dagster.training.policy import CHAT_TEMPLATE, SPECIAL_TOKENS, TownPolicy


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with single digits; deterministic for the same texts in the same order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin, end, _, _, pad = SPECIAL_TOKENS
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad, padding_side="left")
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def train(job: Any, report: Callable[[str], None]) -> dict[str, Any]:
    """Train the policy and return its manifest."""
    from datasets import Dataset, disable_caching
    from transformers import DataCollatorForLanguageModeling, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    from rlhi_dagster.workers.artefact import finish
    from rlhi_dagster.workers.train_loop import arguments, fit, preflight

    started, architecture = time.monotonic(), TownPolicy(**job.extra)
    disable_caching()
    dialogues = pl.read_parquet(job.train, columns=["messages"]).to_dicts()
    tokenizer = build_tokenizer((message["content"] for row in dialogues for message in row["messages"]), architecture.vocabulary)
    rows, too_long, _ = preflight(dialogues, lambda row: [row["messages"]], tokenizer, job.settings.max_length)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.width,
        intermediate_size=architecture.feed_forward_width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        head_dim=architecture.head_width,
        max_position_embeddings=architecture.context,
        initializer_range=architecture.initial_deviation,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    def tokenized(messages: list[dict[str, str]]) -> list[int]:
        return list(tokenizer.apply_chat_template(control_tokens_of(tokenizer).messages(messages), return_dict=True)["input_ids"])

    def build() -> Trainer:
        set_seed(job.settings.seed)
        return Trainer(
            model=LlamaForCausalLM(config),
            args=TrainingArguments(**arguments(job, len(rows), has_held_out=False), train_sampling_strategy="group_by_length"),
            train_dataset=Dataset.from_list([{"input_ids": tokenized(row["messages"])} for row in rows]),
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        )

    trainer = fit(job, build, report)
    return finish(job, trainer, tokenizer, started, dialogues=len(rows), dialogues_too_long=too_long)


if __name__ == "__main__":
    from rlhi_dagster.workers.train_loop import serve

    serve(train)
