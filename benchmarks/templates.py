"""How fast template signatures and clusters are made, and how many copies of a template are found, beside the old rule.

What belongs here: rows per second and peak memory by number of openings; pair precision and recall of the rule on synthetic copies and on
distinct real openings, beside equality of the first 200 folded characters. What does not: a threshold on time; results are recorded in
``README.md``. Run ``python benchmarks/templates.py --help``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from rlhi_dagster.conversations import templates

COPIES = 10


def vocabulary(texts: list[str]) -> list[str]:
    """Distinct words of the real openings, sorted."""
    return sorted({word for text in texts for word in text.split()})


def copies(draw: random.Random, words: list[str], kind: str, length: int, share: float) -> list[str]:
    """Copies of one template of ``length`` fixed words, with a variable part of ``share`` as many words (one with kind `word`)."""
    fixed = draw.choices(words, k=length)
    cut = {"first": 0, "middle": length // 2, "last": length, "word": length // 2}[kind]
    count = 1 if kind == "word" else max(1, round(share * length))
    return [" ".join([*fixed[:cut], *draw.choices(words, k=count), *fixed[cut:]]) for _ in range(COPIES)]


def real_openings(data: Path) -> list[str]:
    """Distinct opening requests of the WildChat sample and of HH-RLHF."""
    wildchat = pl.read_parquet(data / "wildchat/wildchat_sample.parquet")["conversation"].list.first().struct.field("content").to_list()
    with (data / "hh_rlhf/sample.jsonl").open() as lines:
        hh = [json.loads(line)["chosen"].split("\n\nAssistant:")[0].split("\n\nHuman:")[-1].strip() for line in lines]
    return sorted({text for text in wildchat + hh if text})


def interval(hits: int, n: int) -> str:
    """A share with its Wilson 95 % interval."""
    if not n:
        return "-"
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return f"{p:.3f} [{(middle - half) / (1 + z * z / n):.3f}, {(middle + half) / (1 + z * z / n):.3f}] n={n}"


def new_rule(texts: list[str]) -> list[object]:
    """A group per text; null where it is in none."""
    signed = pl.DataFrame({"o": texts}).select(templates.signatures(pl.col("o")).alias("signature"))
    rows = signed.with_columns(pl.lit(0).alias("started_at"), pl.lit("a").alias("source_file")).with_row_index("row_number")
    found = dict(templates.clusters(rows).select("row_number", "template_id").iter_rows())
    return [found.get(row) for row in range(len(texts))]


def old_rule(texts: list[str]) -> list[object]:
    """The same by equality of the first 200 folded characters."""
    heads = pl.DataFrame({"o": texts}).select(templates.folded(pl.col("o")).str.head(200).alias("h"))
    return heads.select(pl.when(pl.len().over("h") >= templates.MIN_CONVERSATIONS).then("h")).to_series().to_list()


def quality(data: Path, seed: int) -> None:
    """Print recall by kind and share, and precision over all pairs."""
    draw = random.Random(seed)
    real = real_openings(data)
    words = vocabulary(real)
    groups = [
        (kind, share, copies(draw, words, kind, length, share))
        for kind in ("first", "middle", "last", "word")
        for share in ((0.1, 0.25, 0.5) if kind != "word" else (0.0,))
        for length in (20, 40, 80, 160, 400)
        for _ in range(10)
    ]
    texts = [text for *_, group in groups for text in group] + real
    truth = [number for number, (*_, group) in enumerate(groups) for _ in group] + list(range(-len(real), 0))
    for name, rule in (("MinHash", new_rule), ("head", old_rule)):
        found = rule(texts)
        print(f"\n{name}: variable part, its share of the fixed words, pair recall")
        for kind, share in dict.fromkeys((kind, share) for kind, share, _ in groups):
            mine = [n for n, group in enumerate(groups) if group[:2] == (kind, share)]
            pairs = [p for n in mine for p in combinations(range(n * COPIES, (n + 1) * COPIES), 2)]
            print(f"  {kind:<7}{share:>5}  {interval(sum(found[a] is not None and found[a] == found[b] for a, b in pairs), len(pairs))}")
        together: dict[object, list[int]] = {}
        for row, group in enumerate(found):
            if group is not None:
                together.setdefault(group, []).append(truth[row])
        joined = [a == b for members in together.values() for a, b in combinations(members, 2)]
        print(f"  pair precision {interval(sum(joined), len(joined))}")
        print(f"  real openings in a cluster: {sum(f is not None for f in found[-len(real) :])} of {len(real)}")


def openings(rows: int, words: list[str], draw: random.Random) -> Iterator[str]:
    """Openings of WildChat-like length; 7 % are copies of one long template whose variable part comes first."""
    fixed = " ".join(draw.choices(words, k=150))
    for _ in range(rows):
        if draw.random() < 0.07:
            yield f"{' '.join(draw.choices(words, k=5))} {fixed}"
        else:
            yield " ".join(draw.choices(words, k=min(400, int(draw.lognormvariate(3.2, 1.4)) + 1)))


def timed(work: Callable[[], pl.DataFrame]) -> tuple[float, pl.DataFrame]:
    """Wall seconds of ``work`` and what it gave."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def speed(rows: int, words: list[str], seed: int) -> None:
    """Print rows per second of both steps and the peak memory of the process so far."""
    draw = random.Random(seed)
    frame = pl.DataFrame({"o": list(openings(rows, words, draw)), "started_at": np.arange(rows)})
    frame = frame.with_columns(pl.lit("a").alias("source_file")).with_row_index("row_number")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    query = frame.lazy().select(*templates.ORDER, templates.signatures(pl.col("o")).alias("signature"))
    signing, signed = timed(lambda: query.collect(engine="streaming"))
    clustering, found = timed(lambda: templates.clusters(signed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows:>9,} rows, mean {frame['o'].str.len_chars().mean():.0f} characters: signatures {signing:.2f} s ({rows / signing:,.0f}/s), "
        f"clusters {clustering:.2f} s ({rows / clustering:,.0f}/s), {len(found):,} rows in {found['template_id'].n_unique()} templates; "
        f"peak {peak:,.0f} MB, {before:,.0f} MB before",
        flush=True,
    )


def main() -> None:
    """Parse the command line, print both tables."""
    parser = argparse.ArgumentParser(prog="python benchmarks/templates.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real openings (default %(default)s)")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="sizes to time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    given = parser.parse_args()
    quality(given.data, given.seed)
    words = vocabulary(real_openings(given.data))
    for rows in given.rows:
        speed(rows, words, given.seed)


if __name__ == "__main__":
    main()
