"""DPO with the prompt of a pair encoded once, beside plain TRL: pairs per second on the same pairs, by turns, and the loss curves.

What belongs here: training steps of both trainers on persona-shaped pairs (a long shared prompt, two shorter replies), on a Llama with
random weights, and the largest difference of their losses. What does not: a threshold; results are recorded in ``benchmarks/README.md``.
Run ``python benchmarks/train_dpo.py --help``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_caching
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from rlhi_dagster.workers.shared_prefix import SharedPrefixDPOTrainer

KINDS: dict[str, type[DPOTrainer]] = {"plain": DPOTrainer, "shared": SharedPrefixDPOTrainer}
WORDS = 2_000
EPOCHS = 3


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {"<pad>": 0, "<end>": 1, **{f"w{number}": number + 2 for number in range(WORDS)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def pairs(count: int, shared: int, side: int, seed: int) -> Dataset:
    """``count`` pairs of ``shared`` prompt tokens and some ``side`` tokens a reply (from four fifths to six fifths of it)."""
    rng = random.Random(seed)

    def words(number: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(number))

    def reply() -> str:
        return " " + words(rng.randint(side * 4 // 5, side * 6 // 5))

    return Dataset.from_list([{"prompt": words(shared), "chosen": reply(), "rejected": reply()} for _ in range(count)])


def trainer(kind: str, shape: LlamaConfig, data: Dataset, batch: int, out: Path) -> tuple[Any, float]:
    """A trainer of ``kind``, and the seconds that its reference log-probabilities took."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = DPOConfig(
        output_dir=str(out / kind),
        beta=0.1,
        max_length=None,
        learning_rate=1e-5,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=batch,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
    started = time.perf_counter()
    made = KINDS[kind](model=LlamaForCausalLM(shape).to(device), args=config, train_dataset=data, processing_class=tokenizer())
    made.remove_callback(PrinterCallback)
    return made, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="DPO steps with and without a shared prefix, by turns.")
    parser.add_argument("--shared", type=int, default=1000, help="tokens of the prompt (default %(default)s)")
    parser.add_argument("--side", type=int, default=450, help="tokens of a reply, on average (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a round (default %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="pairs of a step (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model (default %(default)s)")
    parser.add_argument("--width", type=int, default=512, help="width of the model (default %(default)s)")
    given = parser.parse_args()
    disable_caching()
    heads = given.width // 64
    shape = LlamaConfig(
        vocab_size=WORDS + 2,
        hidden_size=given.width,
        intermediate_size=given.width * 8 // 3,
        num_hidden_layers=given.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 4, 1),
        max_position_embeddings=8192,
        pad_token_id=0,
        eos_token_id=1,
    )
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    references: dict[str, list[float]] = {kind: [] for kind in KINDS}
    apart = 0.0
    data = pairs(given.pairs, given.shared, given.side, 0)
    with tempfile.TemporaryDirectory() as out:
        for turn in range(given.rounds + 1):  # the first one warms up
            losses = {}
            for kind in KINDS:
                made, seconds = trainer(kind, shape, data, given.batch, Path(out))
                started = time.perf_counter()
                made.train()
                took = time.perf_counter() - started
                losses[kind] = [step["loss"] for step in made.state.log_history if "rewards/margins" in step]
                if turn:
                    rates[kind].append(EPOCHS * given.pairs / took)
                    references[kind].append(seconds)
            apart = max(apart, *(abs(one - other) for one, other in zip(losses["plain"], losses["shared"], strict=True)))
    parameters = sum(weights.numel() for weights in LlamaForCausalLM(shape).parameters())
    ratios = [shared / plain for plain, shared in zip(rates["plain"], rates["shared"], strict=True)]
    of_reference = [plain / shared for plain, shared in zip(references["plain"], references["shared"], strict=True)]
    print(f"{parameters / 1e6:.1f} M parameters, {given.shared} shared + 2 x some {given.side} tokens, {torch.get_num_threads()} threads")
    print(f"training, pairs per second: plain {statistics.median(rates['plain']):.3f}, shared {statistics.median(rates['shared']):.3f}")
    print(f"  ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}], {given.rounds} rounds by turns")
    print(f"reference log-probabilities: ratio {statistics.median(of_reference):.2f} [{min(of_reference):.2f}, {max(of_reference):.2f}]")
    print(f"largest difference of a step's loss: {apart:.1e}")


if __name__ == "__main__":
    main()
