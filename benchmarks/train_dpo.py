"""Persona-DPO beside plain TRL on the same pairs, by turns: what sorted batches, the shared prefix and the stored reference are worth.

What belongs here: training steps and reference log-probabilities of each way on persona-shaped pairs (a long shared prompt, two shorter
replies) with a Llama of random weights; padding, useful tokens, model FLOP utilisation, and the largest difference of losses. What does
not: a threshold; results are recorded in ``benchmarks/README.md``. Run ``python benchmarks/train_dpo.py --help``.

The small model trains all its weights, in float32 without autocast. The shape ``8b`` trains as the product does with ``lora: {}``: adapters
in float32 on weights in bfloat16, autocast, gradient checkpointing, with ``LoraSettings`` as they are. All weights in float32 would take
140 GiB or more by the forecast (``rlhi_dagster/training/memory_forecast.py``), no single GPU's; adapters take some 20 to 30 GiB. What
profile ``paper`` does, all weights in shares over several GPUs, is not measured.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_caching, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.flops import ModelShape, apart, packed, training_flops
from rlhi_dagster.training.reference_keys import KIND
from rlhi_dagster.training.settings import DPOSettings, LoraSettings
from rlhi_dagster.workers.batching import LengthSorted, extent, lengths, padded_fraction
from rlhi_dagster.workers.dpo_shared_prefix import SharedPrefixDPOTrainer, packed_extent
from rlhi_dagster.workers.reference_logps import References, StoredReferences
from rlhi_dagster.workers.train_dpo import SharedPrefixTrainer
from rlhi_dagster.workers.train_pairs import PairData, said

WORDS = 2_000
START = ModelRef("random", "0")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLAIN, SORTED, SHARED, ALL = "plain TRL", "sorted", "shared prefix", "all"
TEMPLATE = "{% for m in messages %}{{ m['content'] + ' ' }}{% if m['role'] == 'assistant' %}<end> {% endif %}{% endfor %}"


class SortedTrainer(LengthSorted, DPOTrainer):  # type: ignore[misc]
    """Plain TRL but for the order of pairs."""


KINDS: dict[str, Any] = {PLAIN: DPOTrainer, SORTED: SortedTrainer, SHARED: SharedPrefixDPOTrainer, ALL: SharedPrefixTrainer}


@dataclass
class Measured:
    """What the turns gave.

    Attributes:
        seconds: Of an epoch, by way of training.
        reference: Seconds of the reference log-probabilities, by way of getting them.
        matrix: Operations per second of a matrix product, by turn.
        losses: Of each step, by way of training; of the last turn.
        padding: Share of padding among the tokens read.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    reference: dict[str, list[float]] = field(default_factory=dict)
    matrix: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    padding: dict[str, float] = field(default_factory=dict)


class Timed:
    """Stands before a trainer: how long the reference's log-probabilities took."""

    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args: Any) -> Any:
        started = synchronised()
        found = super()._precompute_ref_logps(*args)  # type: ignore[misc]
        self.reference_seconds += synchronised() - started
        return found


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {"<pad>": 0, "<end>": 1, **{f"w{number}": number + 2 for number in range(WORDS)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
    wrapped.chat_template = TEMPLATE
    return wrapped


def pairs(given: argparse.Namespace) -> Dataset:
    """Pairs of some ``shared`` prompt tokens and some ``side`` tokens a reply; lengths are log-normal about these with ``spread``."""
    rng = random.Random(given.seed)

    def words(about: int) -> str:
        longest = 2 * about if given.spread else about
        number = max(1, min(longest, round(about * rng.lognormvariate(0, given.spread))))
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(number))

    def reply() -> list[dict[str, str]]:
        return said(words(round(given.side * rng.uniform(0.8, 1.2))))

    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": words(given.shared)}], "chosen": reply(), "rejected": reply()} for _ in range(given.pairs)]
    )


def shape_of(given: argparse.Namespace) -> LlamaConfig:
    """The model's shape: Llama 3.1's of 8B, or a small one; layers and width as given."""
    width, is_8b = given.width, given.shape == "8b"
    heads = max(width // (128 if is_8b else 64), 1)
    return LlamaConfig(
        vocab_size=128_256 if is_8b and width == 4096 else WORDS + 2,
        hidden_size=width,
        intermediate_size=width * 7 // 2 if is_8b else width * 8 // 3,
        num_hidden_layers=given.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 4, 1),
        head_dim=width // heads,
        max_position_embeddings=8192,
        rope_parameters={"rope_theta": 500_000.0, "rope_type": "default"},
        pad_token_id=0,
        eos_token_id=1,
    )


def settings_of(kind: str, given: argparse.Namespace) -> DPOSettings:
    """How a model of the shape is trained: with adapters as the product has them, or in float32."""
    lent: dict[str, Any] = {"lora": LoraSettings()} if given.shape == "8b" else {"bf16": False, "gradient_checkpointing": False}
    return DPOSettings(
        learning_rate=1e-4, batch_size=given.batch, micro_batch_size=given.micro, shared_prefix=kind in (SHARED, ALL), **lent
    )


def trainer(kind: str, given: argparse.Namespace, data: Dataset, out: Path, store: Path) -> Any:
    """A trainer of ``kind`` with the reference's log-probabilities."""
    torch.manual_seed(0)
    settings = settings_of(kind, given)
    config = DPOConfig(
        output_dir=str(out),
        beta=settings.beta,
        max_length=None,
        learning_rate=settings.learning_rate,
        num_train_epochs=1,
        lr_scheduler_type="constant",
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch_size,
        gradient_checkpointing=settings.gradient_checkpointing,
        precompute_ref_log_probs=True,
        use_cpu=DEVICE == "cpu",
        bf16=settings.bf16,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
        data_seed=1,
    )
    of_job: Any = SimpleNamespace(job=SimpleNamespace(settings=settings, start=START))
    kept = torch.get_default_dtype()
    torch.set_default_dtype(PairData.load_kwargs(of_job)["dtype"])
    try:
        with torch.device(DEVICE):
            model = LlamaForCausalLM(shape_of(given))
    finally:
        torch.set_default_dtype(kept)
    more: dict[str, Any] = {"peft_config": PairData.adapters(of_job, "CAUSAL_LM")}
    if issubclass(KINDS[kind], StoredReferences):
        more["references"] = References(ResponseStore(store, KIND, START.identity), START, settings, lambda line: None)
    timed = type("TimedTrainer", (Timed, KINDS[kind]), {})
    made = timed(model=model, args=config, train_dataset=data, processing_class=tokenizer(), **more)
    made.remove_callback(PrinterCallback)
    return made


def synchronised() -> float:
    """The time now, with nothing left to do on the device; on the CPU this process's own time, because others may share the machine."""
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations per second of the fastest of some square matrix products."""
    best = 0.0
    for size in (4096, 8192) if DEVICE == "cuda" else (512, 1024):
        one, other = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
        for _ in range(5):
            started = synchronised()
            one @ other
            best = max(best, 2 * size**3 / (synchronised() - started))
    return best


def turn(given: argparse.Namespace, data: Dataset, folder: Path, number: int, measured: Measured) -> None:
    """Each way once: the reference's log-probabilities and an epoch. Turn 0 warms up, with the pairs of one step, and is not counted."""
    counts = number > 0
    data = data if counts else data.select(range(given.batch))
    rate = matrix_rate(torch.bfloat16 if given.shape == "8b" else torch.float32)
    for kind in KINDS:
        store = folder / f"store-{number}"
        made = trainer(kind, given, data, folder / "out", store)
        references = {kind: made.reference_seconds}
        if kind == ALL:
            made = trainer(kind, given, data, folder / "out", store)
            references["known"] = made.reference_seconds
        started = synchronised()
        made.train()
        took = synchronised() - started
        measured.losses[kind] = [step["loss"] for step in made.state.log_history if "rewards/margins" in step]
        order = np.array(list(made._get_train_sampler()))
        extent_of = packed_extent if kind in (SHARED, ALL) else extent
        measured.padding[kind] = padded_fraction(extent_of(made.train_dataset), order, given.micro)
        if counts:
            measured.seconds.setdefault(kind, []).append(took)
            for way, seconds in references.items():
                measured.reference.setdefault(way, []).append(seconds)
        del made
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    if counts:
        measured.matrix.append(rate)


def profiled(given: argparse.Namespace, data: Dataset, folder: Path) -> str:
    """Where the time of an epoch of everything together goes."""
    made = trainer(ALL, given, data.select(range(min(given.batch, len(data)))), folder / "out", folder / "store-0")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=activities) as found:
        made.train()
    return str(found.key_averages().table(sort_by=f"self_{'cuda' if DEVICE == 'cuda' else 'cpu'}_time_total", row_limit=15))


def ratio(over: list[float], under: list[float]) -> str:
    """Median, least and greatest of the ratios by turns."""
    found = [one / other for one, other in zip(over, under, strict=True)]
    return f"{statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def flops(shape: ModelShape, sizes: tuple[int, int], loss_tokens: int, *, has_adapters: bool) -> int:
    """Operations of a pair's training; weights beside adapters get no gradient, and the adapters' own work is not counted."""
    tokens, seen = sizes
    found = training_flops(shape, tokens, loss_tokens, seen)
    return found - 2 * (shape.body * tokens + shape.head * loss_tokens) if has_adapters else found


def tell(given: argparse.Namespace, data: Dataset, measured: Measured) -> None:
    """Print the table."""
    lora = settings_of(ALL, given).lora
    config = shape_of(given)
    shape = ModelShape.llama(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        feed_forward=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head_width=config.head_dim,
    )
    sides = [lengths(data, name).tolist() for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    rows = list(zip(*sides, strict=True))
    useful = sum(apart(*row)[0] for row in rows)
    rate = statistics.median(measured.matrix)
    weights = shape.body + 2 * shape.head
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{weights / 1e6:,.1f} M weights, {len(rows)} pairs of {useful / len(rows):,.0f} tokens (both sides), steps of {given.batch},")
    print(f"{given.micro} at once, {given.rounds} turns; {device}, {rate / 1e9:,.1f} GFLOP/s in matrix products")
    if lora:
        print(f"trained: adapters of rank {lora.rank} in float32 on weights in bfloat16, autocast, gradient checkpointing; not all weights")
    else:
        print("trained: all weights, in float32 without autocast")
    print("way | padding | pairs/s | useful tokens/s | model FLOP utilisation | pairs/s over plain TRL's")
    for kind, seconds in measured.seconds.items():
        took, count = statistics.median(seconds), packed if kind in (SHARED, ALL) else apart
        work = sum(flops(shape, count(*row), row[1] + row[2], has_adapters=lora is not None) for row in rows)
        used = statistics.median([work / spent / speed for spent, speed in zip(seconds, measured.matrix, strict=True)])
        faster = ratio(measured.seconds[PLAIN], seconds)
        print(f"{kind} | {measured.padding[kind]:.2f} | {len(rows) / took:.3f} | {useful / took:,.0f} | {used:.2f} | {faster}")
    plain = measured.reference[PLAIN]
    for way, seconds in measured.reference.items():
        print(f"reference, {way}: {len(rows) / statistics.median(seconds):.2f} pairs/s, over TRL's {ratio(plain, seconds)}")
    whole = {
        way: [one + other for one, other in zip(measured.reference[way], measured.seconds[kind], strict=True)]
        for way, kind in ((PLAIN, PLAIN), (ALL, ALL), ("known", ALL))
    }
    for way in (ALL, "known"):
        print(f"reference and one epoch, {'computed' if way == ALL else 'reference known'}: {ratio(whole[PLAIN], whole[way])}")
    for one, other in ((PLAIN, SHARED), (SORTED, ALL)):
        apart_by = max(abs(a - b) for a, b in zip(measured.losses[one], measured.losses[other], strict=True))
        print(f"largest difference of a step's loss, {one} and {other}: {apart_by:.1e} over {len(measured.losses[one])} steps")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Persona-DPO beside plain TRL, by turns, with and without each part.")
    parser.add_argument("--shared", type=int, default=1000, help="tokens of the prompt, about (default %(default)s)")
    parser.add_argument("--side", type=int, default=450, help="tokens of a reply, about (default %(default)s)")
    parser.add_argument(
        "--spread", type=float, default=0.6, help="of lengths: sigma of a log-normal; 0 for equal ones (default %(default)s)"
    )
    parser.add_argument("--pairs", type=int, default=12, help="pairs of an epoch (default %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step (default %(default)s)")
    parser.add_argument("--micro", type=int, default=4, help="pairs of a forward pass (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default %(default)s)")
    parser.add_argument(
        "--shape", choices=("small", "8b"), default="small", help="8b: Llama 3.1's, with adapters on bf16 weights, and a profile"
    )
    parser.add_argument("--layers", type=int, help="of the model (default: 2, of 8b 32)")
    parser.add_argument("--width", type=int, help="of the model (default: 256, of 8b 4096)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs (default %(default)s)")
    given = parser.parse_args()
    given.layers = given.layers or {"small": 2, "8b": 32}[given.shape]
    given.width = given.width or {"small": 256, "8b": 4096}[given.shape]
    disable_caching()
    disable_progress_bars()
    data, measured = pairs(given), Measured()
    with tempfile.TemporaryDirectory() as out:
        for number in range(given.rounds + 1):
            turn(given, data, Path(out), number, measured)
        tokenized = trainer(ALL, given, data, Path(out) / "out", Path(out) / f"store-{given.rounds}").train_dataset
        tell(given, tokenized, measured)
        if given.shape == "8b":
            print(profiled(given, data, Path(out)))


if __name__ == "__main__":
    main()
