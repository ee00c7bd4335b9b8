"""What the replies to one prompt gain from sharing its forward pass, in the transformers reward engine.

What belongs here: rewards per CPU second with sharing and without (batches sorted by length alone), on the same requests, by turns, and
the largest difference between their rewards. The model has the town's shape and random weights; personas, requests and replies are the
town's. What does not: a threshold; results are recorded in ``docs/concepts/reward_models.md``. Run ``python benchmarks/rewards.py --help``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path

import torch
import yaml
from transformers import LlamaConfig, LlamaForSequenceClassification

from rlhi_dagster.engines import rewards
from rlhi_dagster.engines.base import RewardRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.simulation.town import corpus
from rlhi_dagster.training.policy import TownPolicy
from rlhi_dagster.workers.train_policy import build_tokenizer

Calls = list[tuple[str, RewardRequest]]


def workload(prompts: int, count: int, seed: int) -> Calls:
    """``count`` replies to each of ``prompts`` opening requests with a persona."""
    dialogues = [each for each in corpus.build(4 * prompts + 400, seed)["messages"].to_list() if each[0]["role"] == "system"]
    replies = [message["content"] for each in dialogues for message in each if message["role"] == "assistant"]
    rng = random.Random(seed)
    drawn = [(each[:2], rng.choice(replies)) for each in dialogues[:prompts] for _ in range(count)]
    return [(str(n), RewardRequest([*prompt, {"role": "assistant", "content": reply}])) for n, (prompt, reply) in enumerate(drawn)]


def save(folder: Path, texts: list[str]) -> ModelRef:
    """A random reward model with the shape of the sample's policy."""
    sample = yaml.safe_load((Path(rewards.__file__).parents[1] / "profiles" / "town.yaml").read_text())
    shape = TownPolicy(**sample["policy"]["town"])
    tokenizer = build_tokenizer(texts, shape.vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.context,
        initializer_range=shape.initial_deviation,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelRef("random", "0", str(folder))


def seconds(engine: rewards.TransformersRewardEngine, calls: Calls) -> tuple[float, dict[str, float]]:
    """CPU seconds of one pass (what else the machine does is not in them), and its rewards."""
    started = time.process_time()
    found = {key: float(answer.reward or 0.0) for key, answer in chain.from_iterable(engine.score(iter(calls)))}
    return time.process_time() - started, found


def main() -> None:
    """Parse the command line, print the figures."""
    parser = argparse.ArgumentParser(prog="python benchmarks/rewards.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=960, help="prompts times replies (default %(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16, 64], help="replies per prompt (default 1 4 16 64)")
    parser.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="rows run together (default %(default)s)")
    given = parser.parse_args()
    settings = TransformersSettings(device="cpu", dtype="float32", batch_size=given.batch, chunk_size=1024)
    torch.set_num_threads(1)
    prompt_of = rewards._prompt
    ways = {"apart": lambda _: object(), "shared": prompt_of}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, batches of {given.batch}, {given.rounds} rounds\n")
    print("| replies per prompt | n | tokens each | rewards per CPU second apart | shared | ratio | largest difference |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        texts = [message["content"] for _, request in workload(400, 1, 1) for message in request.messages]
        engine = rewards.TransformersRewardEngine(save(Path(folder), texts), settings)
        for count in given.counts:
            calls = workload(given.requests // count, count, seed=2)
            taken: dict[str, list[float]] = {way: [] for way in ways}
            scored: dict[str, dict[str, float]] = {}
            for turn in range(given.rounds + 1):
                for way, key in ways.items():
                    rewards._prompt = key
                    took, scored[way] = seconds(engine, calls)
                    taken[way] += [took] if turn else []  # the first round warms up
            ratios = sorted(apart / shared for apart, shared in zip(taken["apart"], taken["shared"], strict=True))
            apart, shared = (len(calls) / statistics.median(taken[way]) for way in ("apart", "shared"))
            tokens = statistics.mean(len(row) for _, request in calls if isinstance(row := engine.transcripts(request), list))
            apart_from = max(abs(scored["apart"][key] - scored["shared"][key]) for key in scored["apart"])
            spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
            print(f"| {count} | {len(calls):,} | {tokens:.0f} | {apart:,.0f} | {shared:,.0f} | {spread} | {apart_from:.0e} |", flush=True)


if __name__ == "__main__":
    main()
