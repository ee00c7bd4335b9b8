"""How well the graders of known answers agree with other graders, and with the known answers themselves.

What belongs here: the published files beside the repository, graded as a run grades them (each comparison in a child process). What does
not: a threshold, and checkpoints. The results are recorded in ``docs/results/graders.md``.
Run: ``python benchmarks/graders.py ../shared/data``.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.accuracy import accuracies
from rlhi_dagster.evaluation.benchmarks import KNOWN_ANSWERS
from rlhi_dagster.evaluation.benchmarks.items import file_in, numbered
from rlhi_dagster.reasoning.choice_answers import chosen_letter
from rlhi_dagster.reasoning.known_answers import graded
from rlhi_dagster.reasoning.math_answers import Grade, Solution
from rlhi_dagster.workers.verify import Grader

FORMULAS = ("math_500", "minerva", "olympiad_bench", "gsm8k", "amc_23", "aime_24")
ITEMS = 300
"""Most items of a benchmark whose known answer is graded."""


def reference_grades(folder: Path, grader: Grader) -> Iterator[str]:
    """Agreement with the grades that came with sampled answers to problems of MATH, and every disagreement."""
    same, clusters, counted = [], [], Counter[tuple[bool, str]]()
    for _, row in numbered(file_in(folder, "grader_check.jsonl")):
        for sample, (text, score) in enumerate(zip(row["code"], row["score"], strict=True)):
            found = grader(Solution(row["gt"], text))
            counted[bool(score), found.value] += 1
            same.append(float(bool(score) == (found is Grade.RIGHT)))
            clusters.append(str(row["idx"]))
            if not same[-1]:
                given = row["pred"][sample]
                yield f"  item {row['idx']}, sample {sample}: known {row['gt']}, given {given}, reference {score}, here {found}"
    agreed = estimate(same, clusters, is_share=True)
    yield f"  {sum(same):.0f} of {agreed.n} agree: {agreed.value:.3f} [{agreed.ci_low:.3f}, {agreed.ci_high:.3f}]; {dict(counted)}"


def odd_answers(path: Path, grader: Grader) -> Iterator[str]:
    """Made-up answers with the grade that a person would give."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    others = [(row, found) for row in rows if (found := grader(Solution(row["known"], row["solution"])).value) != row["expected"]]
    yield from (f"  known {row['known']}, solution {row['solution']}: expected {row['expected']}, here {found}" for row, found in others)
    yield f"  {len(rows) - len(others)} of {len(rows)} as expected"


def known_answers(benchmark: Benchmark, folder: Path, grader: Grader) -> Iterator[str]:
    """Known answers in a box, as they are and with one digit changed."""
    chooser = random.Random(0)
    rows = KNOWN_ANSWERS[benchmark](str(folder)).select("prompt_id", "reference", "tolerance").rows()
    counted = Counter[tuple[str, str]]()
    for name, known, tolerance in chooser.sample(rows, min(len(rows), ITEMS)):
        answers = {"as it is": known}
        if digits := [found.start() for found in re.finditer(r"\d", known)]:
            place = chooser.choice(digits)
            answers["with another digit"] = known[:place] + str((int(known[place]) + chooser.randint(1, 8)) % 10) + known[place + 1 :]
        for kind, answer in answers.items():
            found = grader(Solution(known, rf"The answer is $\boxed{{{answer}}}$.", tolerance=tolerance))
            counted[kind, found.value] += 1
            if (found is Grade.RIGHT) != (kind == "as it is"):
                yield f"  {name}: known {known}, given {answer}: {found}"
    yield f"  {benchmark}: {', '.join(f'{kind} {grade} {count}' for (kind, grade), count in sorted(counted.items()))}"


def letters(folder: Path) -> Iterator[str]:
    """Letters found in a published model's replies to MMLU-Pro, beside those that were published with them."""
    rows = pl.read_parquet(folder / "mmlu_pro_llama31_8b_outputs.parquet")
    found = pl.Series([chosen_letter(text) for text in rows["generated_text"]], dtype=pl.String)
    none = found.is_null()
    yield f"  {(found == rows['pred']).sum()} of {len(rows)} letters as published; none found in {none.sum()}"
    published = rows["pred"] == rows["answer"]
    blind = rows["pred"].filter(none).unique().to_list()
    yield f"  published: {published.sum()} right, {(published & none).sum()} of them where none is found; letters there: {blind}"
    replies = rows.select(prompt_id=pl.format("mmlu_pro:{}", "question_id"), sample=pl.lit(0), reply="generated_text")
    for row in accuracies(graded(KNOWN_ANSWERS[Benchmark.MMLU_PRO](str(folder)), replies, {}), "published").to_dicts():
        yield f"  {row['metric']}: {row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}], n = {row['n']}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Grade everything and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with `reasoning` and `odd_inputs`")
    data = parser.parse_args(arguments).data
    with Grader() as grader:
        parts = {
            "reference grades": reference_grades(data / "reasoning", grader),
            "odd answers": odd_answers(data / "odd_inputs/H1_math/answers.csv", grader),
            **{f"known answers of {name}": known_answers(Benchmark(name), data / "reasoning", grader) for name in FORMULAS},
            "letters": letters(data / "reasoning"),
        }
        for name, lines in parts.items():
            sys.stdout.write("\n".join([name, *lines, ""]))


if __name__ == "__main__":
    main()
