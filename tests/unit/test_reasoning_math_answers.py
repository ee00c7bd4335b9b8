"""Final answers: where they are found in a solution, when two are the same, and that no expression can hang the verification."""

from __future__ import annotations

import csv
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_dagster.base.boxes import boxes
from rlhi_dagster.reasoning import math_answers, math_spelling
from rlhi_dagster.reasoning.math_answers import Grade, Solution, announced_answer, grade
from rlhi_dagster.workers.verify import Grader

CHECK = Path(__file__).parents[2] / "../shared/data/reasoning/grader_check.jsonl.gz"
ODD = Path(__file__).parents[2] / "../shared/data/odd_inputs/H1_math/answers.csv"
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
        (r"Answer: \[5\]", "5"),
        ("so <answer> 5 </answer>", "5"),
        ("Respuesta: 5", "5"),
        ("答案：5", "5"),
        ("Answer: \u20135,", "-5"),
        ("Answer: ５<|im_end|>", "5"),
        (r"<think>\boxed{3}</think> Answer: 5", "5"),
        (r"which is 3: \boxed{3}</think> Answer: 5", "5"),
        (r"<think>\boxed{3}", None),
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
        (r"\frac{1}{2004!}", r"\boxed{\frac{1}{2006!}}", Grade.WRONG),
        (r"\frac{1}{2004!}", r"\boxed{0}", Grade.WRONG),
        (r"2^{-99}", r"\boxed{\frac{1}{2^{99}}}", Grade.RIGHT),
        (r"e^{-50}", r"\boxed{e^{-51}}", Grade.WRONG),
        (r"\frac{1}{10000}", r"\boxed{\frac{1}{10001}}", Grade.WRONG),
        (r"\frac{1}{120}", r"\boxed{0.008333}", Grade.RIGHT),
        ("x=10^{-9}", r"\boxed{x=10^{-8}}", Grade.WRONG),
        ("1.5e3", r"\boxed{1500}", Grade.RIGHT),
        ("6.02e23", r"\boxed{6.02\times10^{23}}", Grade.RIGHT),
        ("0.002", "The answer is 2e-3.", Grade.RIGHT),
        ("3e", r"\boxed{3e2}", Grade.WRONG),
        ("1 1/2", r"\boxed{1.5}", Grade.RIGHT),
        ("5", "Final answer: $5$ dollars", Grade.RIGHT),
        ("5", "# Answer\n\n$5$ dollars", Grade.RIGHT),
        ("5", "Final answer: The value is $5$.", Grade.RIGHT),
        ("5", "Answer: about 5 km/h", Grade.RIGHT),
        ("5", "Answer: 5 cm^2", Grade.RIGHT),
        ("5", "Answer: $5$ or $6$", Grade.WRONG),
        ("5", "Answer: 5 dollars and 20 cents", Grade.WRONG),
        ("3", r"\boxed{\text{3 apples}}", Grade.RIGHT),
        ("90", r"\boxed{90°}", Grade.RIGHT),
        ("50\\%", r"\boxed{50}", Grade.RIGHT),
        ("C", "The answer is (C).", Grade.RIGHT),
        (r"\text{(C)}", "Answer: C) 5", Grade.RIGHT),
        ("C", "The answer is (B).", Grade.WRONG),
        ("5", "答案是 6。检查 5", Grade.WRONG),
        ("5", "Die Antwort ist 5.", Grade.RIGHT),
        ("5", r"<think>\boxed{5}</think>", Grade.NO_ANSWER),
        ("5", "<think>3</think>The answer is 5</s>", Grade.RIGHT),
    ],
)
def test_grades(known: str, solution: str, expected: Grade) -> None:
    assert grade(Solution(known, solution)) is expected


@pytest.mark.parametrize(
    ("known", "boxed", "expected"),
    [
        # fractions, mixed numbers, roots
        (r"\frac{1}{2}", "½", Grade.RIGHT),
        (r"\frac{\sqrt3}{2}", "√3/2", Grade.RIGHT),
        (r"\frac{1}{3}", "0.3333", Grade.WRONG),
        (r"\frac{7}{3}", r"2\frac{1}{3}", Grade.RIGHT),
        ("11/2", "1 1/2", Grade.WRONG),
        (r"\sqrt{2}", "2^{0.5}", Grade.RIGHT),
        (r"\sqrt{2}", "1.414", Grade.WRONG),
        # per cent
        ("12.5", r"12.5\%", Grade.RIGHT),
        ("62.5%", "62.5", Grade.RIGHT),
        ("0.5", r"50\%", Grade.RIGHT),
        ("5", r"0.05\%", Grade.WRONG),
        (r"50\%", "5", Grade.WRONG),
        # units, degrees and currencies
        ("7", r"7~\text{kg}", Grade.RIGHT),
        ("100", r"100\ \Omega", Grade.RIGHT),
        ("9.8", r"9.8\,\mathrm{m}\,\mathrm{s}^{-2}", Grade.RIGHT),
        (r"12\pi\text{ cm}^2", r"12\pi", Grade.RIGHT),
        ("25", r"25^\circ C", Grade.RIGHT),
        ("36", r"36\degree", Grade.RIGHT),
        ("2t", "2", Grade.WRONG),
        ("6m", "6", Grade.WRONG),
        ("5", "€5", Grade.RIGHT),
        ("5", "5 dollars", Grade.RIGHT),
        ("5", r"5\$", Grade.RIGHT),
        # intervals
        ("[-1,1]", r"-1 \le x \le 1", Grade.RIGHT),
        (r"(2,\infty)", "x>2", Grade.RIGHT),
        ("(1,2]", "(1,2)", Grade.WRONG),
        (r"x<1\text{ or }x>2", r"(-\infty,1)\cup(2,\infty)", Grade.RIGHT),
        # lists and sets
        (r"\emptyset", r"\varnothing", Grade.RIGHT),
        ("1,2", r"2 \text{ and } 1", Grade.RIGHT),
        ("1,2,3", "1,2", Grade.WRONG),
        ("2", "2,3", Grade.WRONG),
        ("3,5", r"x = 3 \text{ or } x = 5", Grade.RIGHT),
        (r"3+\sqrt2,3-\sqrt2", r"3\pm\sqrt{2}", Grade.RIGHT),
        ("5", r"\pm 5", Grade.WRONG),
        ("(2,3),(4,5)", "(3,2),(4,5)", Grade.WRONG),
        # matrices
        (r"\begin{pmatrix} -1/2 \\ 3 \end{pmatrix}", r"\begin{bmatrix} -\frac12 \\ 3 \end{bmatrix}", Grade.RIGHT),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", Grade.WRONG),
        # words, times, dates
        (r"\text{ellipse}", r"\text{an ellipse}", Grade.RIGHT),
        (r"3:00 \text{ p.m.}", "3:00 PM", Grade.RIGHT),
        ("12:30 PM", "12:30 AM", Grade.WRONG),
        ("6:00", r"6:00 \text{ p.m.}", Grade.RIGHT),
        ("July 4", "July 5", Grade.WRONG),
        # bases, thousands, powers of ten
        ("11_2", "11_3", Grade.WRONG),
        ("52_8", r"52_{\text{eight}}", Grade.RIGHT),
        ("1000", r"1\,000", Grade.RIGHT),
        ("1000", "1{,}000", Grade.RIGHT),
        ("1.39e9", r"1.39 \times 10^{9}~\mathrm{atoms/m}", Grade.RIGHT),
        ("4.5e33", r"4.5\times10^{32}", Grade.WRONG),
        # equations and names
        ("2x+1", "y = 2x+1", Grade.RIGHT),
        (r"m_{\max }=n^{2}-n-1", "n^2-n-1", Grade.RIGHT),
        ("E_{1},E_{2}", r"E_1 \text{ and } E_2", Grade.RIGHT),
        (r"y^{\prime}+r y=0", "y' + ry = 0", Grade.RIGHT),
        (r"\lambda_{\text {red}} / \sqrt{2}", r"\frac{\lambda_{\text{red}}}{\sqrt{2}}", Grade.RIGHT),
        ("np.arcsin(10/13)", r"\sin^{-1}\frac{10}{13}", Grade.RIGHT),
        ("-3./2", "-1.5", Grade.RIGHT),
        (r"\frac{1}{\sqrt{2}}c", r"\frac{c}{\sqrt{2}}", Grade.RIGHT),
        (r"\frac{E_{0}^{2}}{2 m \omega^{2}}", r"\frac{E_{0}^{2}}{2 m \omega^{5}}", Grade.WRONG),
        # what only looks
        ("5", r"\,5\,", Grade.RIGHT),
        ("5", r"\color{red}5", Grade.RIGHT),
        ("5", r"\text{Answer: } 5", Grade.RIGHT),
        ("5", r"{\left(5\right)}", Grade.RIGHT),
    ],
)
def test_a_boxed_answer_may_be_spelled_in_other_ways(known: str, boxed: str, expected: Grade) -> None:
    assert grade(Solution(known, rf"So the answer is $\boxed{{{boxed}}}$.")) is expected


@pytest.mark.parametrize(
    ("known", "solution", "expected"),
    [
        ("1,3,5", r"The answers are \boxed{1}, \boxed{3} and \boxed{5}.", Grade.RIGHT),
        ("1,3", r"So $x = \boxed{1}$ or $x = \boxed{3}$.", Grade.RIGHT),
        ("1,3", r"\boxed{1} was wrong, as one sees when trying it in both equations. So \boxed{3}", Grade.WRONG),
        ("3", r"First \boxed{1}, then \boxed{3}", Grade.RIGHT),
        ("5", r"\boxed{5}\boxed{}", Grade.RIGHT),
        ("18", "She makes 9 * 2 = 18 dollars.\n#### 18", Grade.RIGHT),
        ("33", "66 / 2 = 33, and 12 are left.\n#### $33", Grade.RIGHT),
        ("3", "#### 1. Add 3\nNothing more.", Grade.RIGHT),
        ("4", "#### 1. Add 3\nThe answer is 4.", Grade.RIGHT),
        ("B", "The answer is B because A is wrong.", Grade.RIGHT),
    ],
)
def test_several_boxes_and_lines_of_hashes(known: str, solution: str, expected: Grade) -> None:
    assert grade(Solution(known, solution)) is expected


@given(st.integers(-400, 400), st.integers(1, 60), st.data())
def test_a_fraction_is_itself_however_it_is_written_and_no_other(above: int, below: int, data: st.DataObject) -> None:
    value = Fraction(above, below)
    spellings = [
        rf"\dfrac{{{above}}}{{{below}}}",
        f"{above}/{below}",
        rf"x = \frac{{{2 * above}}}{{{2 * below}}}",
        rf"{above}/{below}\text{{ cm}}",
    ]
    if (1000 * value).denominator == 1:
        spellings += [str(float(value)), rf"{float(100 * value):g}\%"]
    if value > 1 and value.denominator > 1:
        spellings.append(rf"{int(value)}\frac{{{value.numerator % value.denominator}}}{{{value.denominator}}}")
    boxed = rf"\boxed{{{data.draw(st.sampled_from(spellings))}}}"
    assert grade(Solution(rf"\frac{{{above}}}{{{below}}}", boxed)) is Grade.RIGHT
    assert grade(Solution(rf"\frac{{{above + 1}}}{{{below}}}", boxed)) is Grade.WRONG


PIECES = st.sampled_from(
    [
        r"5",
        r"12",
        r"{",
        r"}",
        r"\frac",
        r"\text{cm}",
        r",",
        r"x",
        r"(",
        r"]",
        r"%",
        r"\%",
        r"^",
        r"_2",
        r"ab",
        r"=",
        r"\pm",
        r"\boxed{",
        r"√",
        r"'",
        " ",
    ]
)


@settings(max_examples=60)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_anything_in_a_box_gets_a_grade(text: str) -> None:
    assert grade(Solution("5", rf"\boxed{{{text}}}")) in Grade
    assert grade(Solution(text or "x", r"\boxed{7919}")) is not Grade.RIGHT


def test_a_long_word_after_a_number_is_read_in_one_pass() -> None:
    assert math_spelling.without_unit(f"5 {'a' * 200}!") == f"5 {'a' * 200}!"
    assert math_spelling.without_unit(f"5 {'a' * 200}") == "5"


@pytest.mark.parametrize(("answer", "expected"), [("4.3", Grade.RIGHT), (r"4.1\%", Grade.RIGHT), ("4.31", Grade.WRONG), ("x", Grade.WRONG)])
def test_a_number_may_be_off_by_the_tolerance(answer: str, expected: Grade) -> None:
    assert grade(Solution("4.2", rf"\boxed{{{answer}}}", tolerance=0.1)) is expected


def test_odd_answers_are_graded_as_people_would() -> None:
    if not ODD.is_file():
        pytest.skip("no odd answers (odd_inputs/H1_math/answers.csv) beside the repository")
    with ODD.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) > 60
    found = [(row, str(grade(Solution(row["known"], row["solution"])))) for row in rows]
    assert [(row, given) for row, given in found if given != row["expected"]] == []


def test_a_long_text_of_open_tags_is_read_at_once() -> None:
    started = time.monotonic()
    assert announced_answer("<think>" * 20_000 + "</think" * 20_000) is None
    assert time.monotonic() - started < 2


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
        start, end, _ = next(boxes(text))
        text = text[:start] + answer + text[end + 1 :]
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
