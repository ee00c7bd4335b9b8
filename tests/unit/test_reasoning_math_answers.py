"""Final answers: where they are found in a solution, when two are the same, and that no expression can hang the verification."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhi_dagster.reasoning import math_answers
from rlhi_dagster.reasoning.math_answers import Grade, Solution, announced_answer, grade
from rlhi_dagster.workers.verify import Grader

CHECK = Path(__file__).parents[2] / "../shared/data/reasoning/grader_check.jsonl.gz"
TOWER = r"\boxed{9^{9^{9^9}}}"


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{7} and \boxed{8 that never closes", "7"),
        ("# Answer\n\n42", "42"),
        ("so\n\n## Answer: $x^2$.\n", "x^2"),
        ("1 + 2 = 4\nAnswer: 4\nno,\nAnswer: 3", "3"),
        ("**Answer:** 3,000.", "3,000"),
        ("**Final answer**: \u22125", "-5"),
        ("Answer: 4 apples", "4"),
        ("1 + 2 = 3", None),
        ("", None),
    ],
)
def test_the_final_answer_is_where_a_solution_announces_it(solution: str, answer: str | None) -> None:
    assert announced_answer(solution) == answer


@pytest.mark.parametrize(
    ("known", "solution", "expected"),
    [
        ("3", "1 + 2 = 3\nAnswer: 3", Grade.RIGHT),
        ("3", "1 + 2 = 4\nAnswer: 4", Grade.WRONG),
        ("3", "3 is not it. Answer: 4", Grade.WRONG),
        ("3", "1 + 2 = 3", Grade.RIGHT),
        ("3", "no number", Grade.NO_ANSWER),
        ("3", "", Grade.NO_ANSWER),
        (r"\frac{1}{2}", "Thus the answer is $0.5$.", Grade.RIGHT),
        ("6", "Therefore, the answer is:\n\\[\n6\n\\]", Grade.RIGHT),
        ("6", "The answer is not 5; the answer is 6.", Grade.RIGHT),
        ("5", "The answer is 5? No, the answer is 6.", Grade.WRONG),
        ("1/2", r"\boxed{\dfrac{2}{4}}", Grade.RIGHT),
        ("10{,}000", "Answer: 10000", Grade.RIGHT),
        ("2", "Answer: 3 or 2", Grade.WRONG),
        ("Saturday", r"\boxed{\text{Saturday}}", Grade.RIGHT),
        ("Saturday", "The answer is Saturday.", Grade.RIGHT),
        ("Saturday", "The answer is Sunday.", Grade.WRONG),
        ("stressed", r"\boxed{desserts}", Grade.WRONG),
        ("Saturday", "7 days later, so $3$", Grade.NO_ANSWER),
        ("x^2-1", r"\boxed{(x-1)(x+1)}", Grade.RIGHT),
        (r"$\boxed{5}$", "Answer: 5", Grade.RIGHT),
    ],
)
def test_grades(known: str, solution: str, expected: Grade) -> None:
    assert grade(Solution(known, solution)) is expected


def test_a_solution_that_stops_half_way_gives_no_answer() -> None:
    assert grade(Solution("3", "1 + 2 = 3")) is Grade.RIGHT
    assert grade(Solution("3", "1 + 2 = 3", announced_only=True)) is Grade.NO_ANSWER
    assert grade(Solution("3", "1 + 2 = 3\nAnswer: 3", announced_only=True)) is Grade.RIGHT
    assert grade(Solution("3", "The answer is $3$.", announced_only=True)) is Grade.RIGHT


def test_no_expression_hangs_the_verification_or_ends_it() -> None:
    with Grader(seconds=4) as grader:
        child = grader._child.pid
        assert grader(Solution("3", "Answer: 3")) is Grade.RIGHT
        started = time.monotonic()
        assert grader(Solution("5", TOWER)) is Grade.UNDECIDED
        assert time.monotonic() - started < 60
        assert grader._child.pid != child
        assert grader(Solution("3", "Answer: 3")) is Grade.RIGHT
        grader._child.kill()
        grader._child.join()
        assert grader(Solution("3", "Answer: 4")) is Grade.WRONG


def unboxed(text: str) -> str:
    """The text without the commands that box its answers; the answers stay."""
    while (answer := math_answers._last_box(text)) is not None:
        opening = list(math_answers._BOX.finditer(text))[-1]
        text = text[: opening.start()] + answer + text[opening.end() + len(answer) + 1 :]
    return text


@pytest.mark.parametrize("change", [str, unboxed])
def test_agreement_with_reference_grades(change: Callable[[str], str]) -> None:
    if not CHECK.is_file():
        pytest.skip("no reference grades (reasoning/grader_check.jsonl.gz) beside the repository")
    rows = [json.loads(line) for line in gzip.decompress(CHECK.read_bytes()).decode().split("\n") if line]
    outputs = [
        (Solution(row["gt"], change(text)), bool(score)) for row in rows for text, score in zip(row["code"], row["score"], strict=True)
    ]
    counted = Counter((score, grade(item) is Grade.RIGHT) for item, score in outputs)
    assert sum(counted.values()) == 400
    assert counted[True, False] == 0, counted
    assert counted[False, True] <= 1, counted
