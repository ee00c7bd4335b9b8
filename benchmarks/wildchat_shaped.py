"""Write a Parquet file of WildChat-1M's shape: its columns, its message lengths, text that compresses like real text.

What belongs here: the made-up rows that benchmarks read. What does not: any text of a real conversation; only lengths and shares are
taken from one. Run ``python benchmarks/wildchat_shaped.py OUT --conversations 100000``.

Lengths are lognormal with the mean and deviation of log length measured on 1,625 user messages and 1,639 replies of real English
multi-turn conversations of WildChat-1M; user turns are geometric with mean 2.5 (WildChat-1M: 2.52). Words are drawn by Zipf's law from
made-up ones, so that zstd packs them about three times, as it does the real text. One row in fifty is broken or flagged; one opening in
twenty is copied from one of forty templates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

ROWS_AT_ONCE = 10_000
MEAN_TURNS = 2.5
USER_LENGTH, REPLY_LENGTH = (4.71, 1.58), (6.83, 1.20)
MAX_LENGTH = 12_000
POOL_CHARACTERS = 48_000_000
WORDS = 60_000
TEMPLATES, TEMPLATE_SHARE = 40, 0.05
ROWS_PER_USER = 5
FIRST, LAST = datetime(2023, 4, 9, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)
MODELS = ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-4-0314", "gpt-4-1106-preview", "gpt-3.5-turbo-0125")
LANGUAGES = ("English", "Chinese", "Russian", "French", "Spanish", "Portuguese", "German")
LANGUAGE_SHARES = (0.53, 0.15, 0.12, 0.06, 0.06, 0.04, 0.04)
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "self-harm", "self-harm/instructions", "self-harm/intent",
    "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
DETOXIFY = ("identity_attack", "insult", "obscene", "severe_toxicity", "sexual_explicit", "threat", "toxicity")


def write(out: Path, conversations: int, seed: int = 0) -> None:
    """Write ``conversations`` rows; the first rows of a longer file are those of a shorter one."""
    generator = np.random.default_rng(seed)
    text = _pool(generator)
    templates = [text[start : start + 400] for start in generator.integers(0, len(text) - 400, TEMPLATES)]
    writer: pq.ParquetWriter | None = None
    for start, rows in _spans(conversations):
        table = _rows(np.random.default_rng((seed, start)), start, rows, text, templates).to_arrow()
        writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _spans(total: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, ROWS_AT_ONCE):
        yield start, min(ROWS_AT_ONCE, total - start)


def _pool(generator: np.random.Generator) -> str:
    """One long text of Zipf-distributed made-up words, of which messages are slices."""
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lengths = np.clip(generator.poisson(5.5, WORDS), 2, 14)
    words = np.array(["".join(generator.choice(letters, length)) for length in lengths])
    ranks = 1.0 / (np.arange(WORDS) + 2.7)
    drawn = generator.choice(words, POOL_CHARACTERS // 6, p=ranks / ranks.sum())
    ends = generator.choice(np.array([" ", ", ", ". ", "\n"]), len(drawn), p=(0.84, 0.07, 0.07, 0.02))
    return "".join(np.char.add(drawn, ends).tolist())[:POOL_CHARACTERS]


def _rows(generator: np.random.Generator, start: int, rows: int, text: str, templates: list[str]) -> pl.DataFrame:
    turns = np.minimum(generator.geometric(1 / MEAN_TURNS, rows), 60)
    conversation = np.repeat(np.arange(rows), 2 * turns)
    n = len(conversation)
    position = np.arange(n) - np.repeat(np.cumsum(2 * turns) - 2 * turns, 2 * turns)
    is_user = position % 2 == 0
    lengths = np.exp(np.where(is_user, generator.normal(*USER_LENGTH, n), generator.normal(*REPLY_LENGTH, n)))
    lengths = np.clip(lengths, 3, MAX_LENGTH).astype(np.int64)
    at = generator.integers(0, len(text) - MAX_LENGTH, n)
    content = [text[a : a + length] for a, length in zip(at.tolist(), lengths.tolist(), strict=True)]
    copied = generator.random(rows) < TEMPLATE_SHARE
    for row, opening in zip(np.flatnonzero(copied), np.flatnonzero(position == 0)[copied], strict=True):
        content[opening] = f"{content[opening][:40]} {templates[row % TEMPLATES]}"
    role = np.where(is_user, "user", "assistant")
    role[(position == 1) & (generator.random(n) < 0.005)] = "user"  # an order that is repaired
    content = ["" if broken else each for each, broken in zip(content, (generator.random(n) < 0.002).tolist(), strict=True)]
    began = generator.integers(int(FIRST.timestamp()), int(LAST.timestamp()), rows)
    user = generator.integers(0, max(start + rows, ROWS_PER_USER) // ROWS_PER_USER, rows)
    sent = pl.from_epoch(pl.Series(began[conversation] + 40 * position), time_unit="s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    header = pl.DataFrame({"accept-language": [f"en-{each % 9}" for each in user], "user-agent": [f"agent {each % 300}" for each in user]})
    language = generator.choice(np.array(LANGUAGES), rows, p=LANGUAGE_SHARES)
    ids = generator.integers(0, 2**63, (rows, 2))
    address = pl.Series([f"{each * 2654435761:064x}" for each in user.tolist()])
    messages = pl.DataFrame(
        {
            "row": conversation,
            "content": content,
            "country": pl.repeat("United States", n, eager=True),
            "hashed_ip": address.gather(conversation),
            "header": header.to_struct("header").gather(conversation),
            "language": language[conversation],
            "redacted": pl.repeat(False, n, eager=True),
            "role": role,
            "state": pl.repeat(None, n, dtype=pl.String, eager=True),
            "timestamp": pl.select(pl.when(pl.Series(is_user)).then(None).otherwise(sent)).to_series(),
            "toxic": pl.repeat(False, n, eager=True),
            "turn_identifier": np.arange(n) + 10_000_000,
        }
    ).with_columns(_scores(generator, n))
    per_message = ("openai_moderation", "detoxify_moderation")
    fields = [name for name in messages.columns if name not in ("row", *per_message)]
    lists = messages.group_by("row", maintain_order=True).agg(pl.struct(fields).alias("conversation"), *per_message).drop("row")
    last = pl.from_epoch(pl.Series(began + 80 * turns), time_unit="s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.DataFrame(
        {
            "conversation_hash": [f"{a:016x}{b:016x}" for a, b in ids.tolist()],
            "model": np.array(MODELS)[generator.integers(0, len(MODELS), rows)],
            "timestamp": last,
            "conversation": lists["conversation"],
            "turn": turns,
            "language": language,
            "openai_moderation": lists["openai_moderation"],
            "detoxify_moderation": lists["detoxify_moderation"],
            "toxic": generator.random(rows) < 0.015,
            "redacted": pl.repeat(False, rows, eager=True),
            "state": pl.repeat(None, rows, dtype=pl.String, eager=True),
            "country": pl.repeat("United States", rows, eager=True),
            "hashed_ip": address,
            "header": header.to_struct("header"),
        }
    )


def _scores(generator: np.random.Generator, n: int) -> list[pl.Series]:
    """Moderation of each message, as WildChat-1M has it: most of the numbers of a row."""
    flags = pl.DataFrame({name: pl.repeat(False, n, eager=True) for name in CATEGORIES}).to_struct("categories")
    scores = pl.DataFrame({name: generator.random(n) ** 8 for name in CATEGORIES}).to_struct("category_scores")
    openai = pl.DataFrame([flags, scores, pl.repeat(False, n, eager=True).alias("flagged")]).to_struct("openai_moderation")
    return [openai, pl.DataFrame({name: generator.random(n) ** 8 for name in DETOXIFY}).to_struct("detoxify_moderation")]


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(prog="python benchmarks/wildchat_shaped.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--conversations", type=int, default=100_000, help="rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default %(default)s)")
    given = parser.parse_args()
    write(given.out, given.conversations, given.seed)
    print(f"{given.out}: {given.conversations:,} conversations, {given.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
