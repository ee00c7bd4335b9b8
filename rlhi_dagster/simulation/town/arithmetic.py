"""Arithmetic for the reasoning assets: sums in several steps, with wrong steps, in PRM800K's record layout.

The stand-in for MATH solutions that a tiny model can handle; the known answer is the sum.
"""

from __future__ import annotations

import random
from typing import Any

Dialogue = list[dict[str, str]]


def problem(terms: list[int]) -> str:
    """The problem's text."""
    return f"What is {' + '.join(map(str, terms))}?"


def steps(terms: list[int], wrong_step: int | None = None, off_by: int = 1) -> list[str]:
    """A solution step by step; from ``wrong_step`` (0-based) on, the running sum is off by ``off_by``."""
    total, lines = terms[0], []
    for index, term in enumerate(terms[1:]):
        result = total + term + (off_by if index == wrong_step else 0)
        lines.append(f"{total} + {term} = {result}")
        total = result
    return [*lines, f"Answer: {total}"]


def draw_terms(rng: random.Random) -> list[int]:
    """Three numbers from 1 to 4: two steps, 64 problems."""
    return [rng.randrange(1, 5) for _ in range(3)]


def dialogue(rng: random.Random, error_rate: float) -> Dialogue:
    """A problem solved, wrongly in ``error_rate`` of cases; after a remark on the wrong step, solved rightly."""
    terms = draw_terms(rng)
    asked = {"role": "user", "content": problem(terms)}
    right = {"role": "assistant", "content": "\n".join(steps(terms))}
    if rng.random() >= error_rate:
        return [asked, right]
    wrong_step = rng.randrange(2)
    # Up to and with the wrong step, as PRM800K's labellers stop there; or to the end.
    shown = steps(terms, wrong_step, rng.choice((-1, 1)))
    if rng.random() < 0.5:
        shown = shown[: wrong_step + 1]
    remark = f"Step {wrong_step + 1} is wrong."
    return [asked, {"role": "assistant", "content": "\n".join(shown)}, {"role": "user", "content": remark}, right]


def prm800k(count: int, seed: int) -> list[dict[str, Any]]:
    """Records in PRM800K's original layout: wrong ones (``found_error``), right ones, and some quality control."""
    rng = random.Random(seed)
    records = []
    for number in range(count):
        terms = draw_terms(rng)
        wrong_step = rng.randrange(2) if rng.random() < 0.7 else None
        lines = steps(terms, wrong_step, rng.choice((-1, 1)))
        shown = lines if wrong_step is None else lines[: wrong_step + 1]
        records.append(
            {
                "labeler": "town",
                "timestamp": f"2023-04-{number % 28 + 1:02d}T12:00:00",
                "generation": None,
                "is_quality_control_question": number % 20 == 7,
                "is_initial_screening_question": number % 20 == 13,
                "question": {"problem": problem(terms), "ground_truth_answer": str(sum(terms))},
                "label": {
                    "steps": [
                        {
                            "completions": [{"text": line, "rating": -1 if index == wrong_step else 1, "flagged": False}],
                            "human_completion": None,
                            "chosen_completion": None if index == wrong_step else 0,
                        }
                        for index, line in enumerate(shown)
                    ],
                    "total_time": 1000 * len(shown),
                    "finish_reason": "solution" if wrong_step is None else "found_error",
                },
            }
        )
    return records


def eval_problems(count: int, seed: int) -> list[tuple[str, str]]:
    """Problems with their answers, each once.

    Raises:
        ValueError: There are not that many problems.
    """
    everything = sorted({problem([a, b, c]): str(a + b + c) for a in range(1, 5) for b in range(1, 5) for c in range(1, 5)}.items())
    if count > len(everything):
        raise ValueError(f"arithmetic_problems is {count}, but there are only {len(everything)} problems")
    return random.Random(seed).sample(everything, count)
