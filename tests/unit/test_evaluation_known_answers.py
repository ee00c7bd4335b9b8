"""Benchmarks with known answers: their files, which letter a reply chooses, and what grades add up to."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlhi_dagster.base.intervals import Estimate, average, estimate
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.accuracy import (
    GRADES,
    OF_THE_PAPER,
    PAPER_AVERAGE,
    accuracies,
    missing_of_the_paper,
    pass_at_k,
    pass_at_k_of,
)
from rlhi_dagster.evaluation.benchmarks import KNOWN_ANSWERS
from rlhi_dagster.evaluation.settings import EvaluationSettings
from rlhi_dagster.reasoning.choice_answers import chosen_letter
from rlhi_dagster.reasoning.known_answers import graded, to_verify
from rlhi_dagster.reasoning.math_answers import Grade, Solution, grade

DATA = Path(__file__).parents[2] / "../shared/data/reasoning"
SIZES = {
    Benchmark.MATH_500: 500,
    Benchmark.MINERVA: 272,
    Benchmark.OLYMPIAD_BENCH: 675,
    Benchmark.MMLU_PRO: 12_032,
    Benchmark.GSM8K: 1_319,
    Benchmark.AMC_23: 40,
    Benchmark.AIME_24: 30,
}
FORMULAS = [benchmark for benchmark in SIZES if benchmark is not Benchmark.MMLU_PRO]


def loaded(benchmark: Benchmark) -> pl.DataFrame:
    if not DATA.is_dir():
        pytest.skip("no reasoning benchmarks (shared/data/reasoning) beside the repository")
    return KNOWN_ANSWERS[benchmark](str(DATA))


def item(prompts: pl.DataFrame, name: str) -> dict[str, object]:
    return prompts.row(by_predicate=pl.col("prompt_id") == name, named=True)


@pytest.mark.parametrize("benchmark", SIZES)
def test_every_item_of_the_published_files_is_there(benchmark: Benchmark) -> None:
    prompts = loaded(benchmark)
    assert len(prompts) == SIZES[benchmark]
    assert prompts["benchmark"].unique().to_list() == [benchmark.value]
    assert prompts["reference"].str.strip_chars().str.len_chars().min() > 0
    asked = prompts["prompt"].list.first().struct.field("content")
    ending = '"The answer is (X)"' if benchmark is Benchmark.MMLU_PRO else "\\boxed{}"
    assert asked.str.contains(ending, literal=True).all()


def test_what_the_layouts_say_of_single_items() -> None:
    minerva, olympiad = loaded(Benchmark.MINERVA), loaded(Benchmark.OLYMPIAD_BENCH)
    assert (item(minerva, "minerva:1")["reference"], item(minerva, "minerva:1")["tolerance"]) == ("4.5e33", pytest.approx(4.5e29))
    assert item(minerva, "minerva:61")["tolerance"] is None
    assert (item(olympiad, "olympiad_bench:2592")["reference"], item(olympiad, "olympiad_bench:2592")["tolerance"]) == ("4.2", 0.1)
    several, one = (str(item(olympiad, f"olympiad_bench:{name}")["prompt"]) for name in ("1807", "1606"))
    assert "separated by commas" in several
    assert "separated by commas" not in one
    assert "The unit of the answer is km/h." in str(item(olympiad, "olympiad_bench:2426")["prompt"])
    assert item(loaded(Benchmark.GSM8K), "gsm8k:2")["reference"] == "70000"
    assert item(loaded(Benchmark.AMC_23), "amc_23:0")["reference"] == "27"
    assert item(loaded(Benchmark.MMLU_PRO), "mmlu_pro:3983")["reference"] == "C"


@pytest.mark.parametrize("benchmark", FORMULAS)
def test_known_answers_are_right_and_with_another_digit_wrong(benchmark: Benchmark) -> None:
    chooser = random.Random(0)
    rows = loaded(benchmark).filter(pl.col("reference").str.contains(r"\d")).select("prompt_id", "reference", "tolerance").rows()
    for name, known, tolerance in chooser.sample(rows, min(len(rows), 40)):
        place = chooser.choice([found.start() for found in re.finditer(r"\d", known)])
        other = known[:place] + str((int(known[place]) + chooser.randint(1, 8)) % 10) + known[place + 1 :]
        assert grade(Solution(known, rf"The answer is $\boxed{{{known}}}$.", tolerance=tolerance)) is Grade.RIGHT, name
        assert grade(Solution(known, rf"The answer is $\boxed{{{other}}}$.", tolerance=tolerance)) is Grade.WRONG, (name, other)


def written(folder: Path, name: str, *rows: dict[str, object]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return str(path)


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    row = {"problem": "one\u2028two\x85three", "answer": "1", "unique_id": "a"}
    [found] = KNOWN_ANSWERS[Benchmark.MATH_500](written(tmp_path, "mine.jsonl", row)).to_dicts()
    assert found["prompt"][0]["content"].startswith("one\u2028two\x85three\n\n")


@pytest.mark.parametrize(
    ("benchmark", "row", "told"),
    [
        (Benchmark.MATH_500, {"problem": "x", "unique_id": "b"}, "has no `answer`"),
        (Benchmark.MATH_500, {"problem": "x", "answer": " ", "unique_id": "b"}, "has no problem or no answer"),
        (Benchmark.MINERVA, {"problem": "x", "solution": "no box", "idx": 2}, r"no \\boxed{} answer"),
        (Benchmark.GSM8K, {"question": "x", "answer": "18", "idx": 2}, "no line `#### NUMBER`"),
        (Benchmark.AIME_24, {"question": "x", "answer": "1.5", "id": 2}, "no whole number"),
        (Benchmark.OLYMPIAD_BENCH, {"question": "x", "context": None, "is_multiple_answer": False, "unit": None}, "has no `final_answer`"),
    ],
)
def test_a_line_of_another_layout_is_told_with_file_and_line(
    tmp_path: Path, benchmark: Benchmark, row: dict[str, object], told: str
) -> None:
    good = {
        "problem": "x",
        "question": "x",
        "answer": "2\n#### 3" if benchmark is Benchmark.GSM8K else "3",
        "unique_id": "a",
        "id": 1,
        "idx": 1,
    }
    good |= {"solution": r"\boxed{3}", "context": None, "is_multiple_answer": False, "unit": None, "final_answer": ["3"], "error": None}
    file = written(tmp_path, "mine.jsonl", good, row)
    with pytest.raises(ValueError, match=rf"mine\.jsonl: line 2 .*{told}"):
        KNOWN_ANSWERS[benchmark](file)


def test_files_that_are_not_there_or_say_a_thing_twice_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of math500\.test\.jsonl is there"):
        KNOWN_ANSWERS[Benchmark.MATH_500](str(tmp_path))
    row = {"problem": "x", "answer": "1", "unique_id": "a"}
    with pytest.raises(ValueError, match="math_500:a is there more than once"):
        KNOWN_ANSWERS[Benchmark.MATH_500](written(tmp_path, "mine.jsonl", row, row))


GPQA = ("Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def test_gpqa_hides_the_right_answer_among_the_others(tmp_path: Path) -> None:
    rows = [dict(zip(GPQA, (f"rec{n}", f"made up {n}?", "right", "wrong 1", "wrong 2", "wrong 3"), strict=True)) for n in range(80)]
    pl.DataFrame(rows).write_csv(tmp_path / "gpqa_diamond.csv")
    prompts = KNOWN_ANSWERS[Benchmark.GPQA](str(tmp_path))
    for row in prompts.to_dicts():
        assert f"\n{row['reference']}. right" in row["prompt"][0]["content"]
    letters = prompts["reference"].value_counts()
    assert set(letters["reference"]) == set("ABCD")
    assert letters["count"].min() >= 8
    pl.DataFrame(rows[:9:-1]).write_csv(tmp_path / "gpqa_diamond.csv")
    assert KNOWN_ANSWERS[Benchmark.GPQA](str(tmp_path)).equals(
        prompts.filter(pl.col("prompt_id").is_in([f"gpqa:rec{n}" for n in range(10, 80)]))
    )
    pl.DataFrame(rows[:2]).with_columns(pl.Series("Incorrect Answer 3", ["x", None])).write_csv(tmp_path / "gpqa_diamond.csv")
    with pytest.raises(ValueError, match=r"gpqa_diamond\.csv: row 2 lacks"):
        KNOWN_ANSWERS[Benchmark.GPQA](str(tmp_path))


def test_mmlu_pro_without_a_column_or_with_another_letter_is_told(tmp_path: Path) -> None:
    frame = pl.DataFrame({"question_id": [1], "question": ["x"], "options": [["a", "b"]], "answer": ["C"], "category": ["law"]})
    frame.write_parquet(tmp_path / "mmlu_pro_test.parquet")
    with pytest.raises(ValueError, match="row 1 has no question, or its answer is none of its options"):
        KNOWN_ANSWERS[Benchmark.MMLU_PRO](str(tmp_path))
    frame.drop("options").write_parquet(tmp_path / "mmlu_pro_test.parquet")
    with pytest.raises(ValueError, match="lacks options"):
        KNOWN_ANSWERS[Benchmark.MMLU_PRO](str(tmp_path))


def published(text: str) -> str | None:
    """The three published expressions as they are, for short texts."""
    for pattern, flags in ((r"answer is \(?([A-J])\)?", 0), (r".*[aA]nswer:\s*([A-J])", 0), (r"\b([A-J])\b(?!.*\b[A-J]\b)", re.DOTALL)):
        if found := re.search(pattern, text, flags):
            return found[1]
    return None


WORDS = st.sampled_from(["answer is ", "(", ")", "Answer:", "answer: ", "\n", " ", "A", "C", "J", "K", "I", "x", "the ", "."])


@given(st.lists(WORDS, max_size=14).map("".join))
@example("Answer:Answer:C")
def test_a_letter_is_found_where_the_published_expressions_find_it(text: str) -> None:
    assert chosen_letter(text) == published(text)


def test_a_letter_of_a_thought_is_none() -> None:
    assert chosen_letter("<think>The answer is (A).</think>The answer is (C).<|eot_id|>") == "C"
    assert chosen_letter("<think>The answer is (A)") is None


def test_letters_of_a_published_model_are_those_that_were_published() -> None:
    if not DATA.is_dir():
        pytest.skip("no published outputs (reasoning/mmlu_pro_llama31_8b_outputs.parquet) beside the repository")
    rows = pl.read_parquet(DATA / "mmlu_pro_llama31_8b_outputs.parquet").with_columns(
        prompt_id=pl.format("mmlu_pro:{}", "question_id"), sample=0
    )
    found = rows.with_columns(letter=pl.Series([chosen_letter(text) for text in rows["generated_text"]], dtype=pl.String))
    none = pl.col("letter").is_null()
    assert found.filter(~none & (pl.col("letter") != pl.col("pred"))).is_empty()
    assert found.filter(none)["pred"].value_counts().rows() == [("G", 82)]
    grades = graded(loaded(Benchmark.MMLU_PRO), found.rename({"generated_text": "reply"}), {})
    by_metric = {row["metric"]: (row["n"], row["value"]) for row in accuracies(grades, "llama").to_dicts()}
    assert by_metric == {
        Metric.ACCURACY: (1_219, pytest.approx(535 / 1_219)),
        Metric.ACCURACY_OF_ANSWERED: (1_137, pytest.approx(535 / 1_137)),
    }
    assert found.select((pl.col("pred") == pl.col("answer")).sum()).item() == 539


def test_each_item_goes_to_its_grader() -> None:
    known = {"math_500:a": ("math_500", "1/2", None), "minerva:b": ("minerva", "1.6", 0.1), "mmlu_pro:c": ("mmlu_pro", "C", None)}
    prompts = pl.DataFrame(
        [(name, *rest) for name, rest in known.items()], schema=["prompt_id", "benchmark", "reference", "tolerance"], orient="row"
    )
    said = [("math_500:a", 0, "0.5"), ("math_500:a", 1, None), ("minerva:b", 0, r"\boxed{1.5}"), ("mmlu_pro:c", 0, "The answer is (C)")]
    replies = pl.DataFrame(said, schema=["prompt_id", "sample", "reply"], orient="row")
    solutions = to_verify(prompts, replies)
    assert solutions == [Solution("1/2", "0.5"), Solution("1.6", r"\boxed{1.5}", tolerance=0.1)]
    found = graded(prompts, replies, {each: grade(each) for each in solutions})
    assert found.rows() == [
        ("math_500", "math_500:a", 0, "right"),
        ("math_500", "math_500:a", 1, "no_answer"),
        ("minerva", "minerva:b", 0, "right"),
        ("mmlu_pro", "mmlu_pro:c", 0, "right"),
    ]
    with pytest.raises(ValueError, match="math_500:z is no item with a known answer"):
        to_verify(prompts, pl.DataFrame([("math_500:z", 0, "1")], schema=replies.schema, orient="row"))


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(samples: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    draws = [any(draw) for draw in combinations(samples, k)]
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(sum(draws) / len(draws))


@pytest.mark.parametrize(("n", "right", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0)])
def test_pass_at_k_of_more_samples_than_there_are_is_told(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} needs at least {k} samples"):
        pass_at_k(n, right, k)


def grades_of(benchmark: Benchmark, *samples: str) -> pl.DataFrame:
    names = {"R": "right", "W": "wrong", "-": "no_answer"}
    rows = [
        (benchmark.value, f"{benchmark}:{problem:03}", sample, names[sign])
        for problem, signs in enumerate(samples)
        for sample, sign in enumerate(signs)
    ]
    return pl.DataFrame(rows, schema=GRADES, orient="row")


def test_accuracy_with_and_without_replies_that_give_no_answer() -> None:
    grades = grades_of(Benchmark.GSM8K, *(["RR-", "RW-", "WWW"] * 10))
    found = {row["metric"]: row for row in accuracies(grades, "base").to_dicts()}
    assert (found["accuracy"]["value"], found["accuracy"]["n"], found["accuracy"]["users"]) == (pytest.approx(1 / 3), 90, 30)
    assert (found["accuracy_of_answered"]["value"], found["accuracy_of_answered"]["n"]) == (pytest.approx(3 / 7), 70)
    assert found["accuracy"]["ci_low"] < 1 / 3 < found["accuracy"]["ci_high"]
    assert pass_at_k_of(grades, 1).value == pytest.approx(1 / 3)
    assert pass_at_k_of(grades, 2).value == pytest.approx((1 + 2 / 3 + 0) / 3)
    with pytest.raises(ValueError, match="gsm8k: the problems have 2 to 3 samples"):
        accuracies(grades.slice(1), "base")


def test_samples_of_one_problem_go_together() -> None:
    same, mixed = (grades_of(Benchmark.GSM8K, *signs) for signs in (["RRRR", "WWWW"] * 10, ["RWRW"] * 20))
    width = [
        row["ci_high"] - row["ci_low"]
        for grades in (same, mixed)
        for row in accuracies(grades, "base").filter(metric="accuracy").to_dicts()
    ]
    alone = estimate([1.0, 0.0] * 10, map(str, range(20)), is_share=True)
    assert alone.ci_low is not None
    assert alone.ci_high is not None
    assert width[0] == pytest.approx(alone.ci_high - alone.ci_low)
    assert width[1] < width[0]


def test_the_papers_average_counts_each_of_its_four_benchmarks_the_same() -> None:
    shares = {Benchmark.OLYMPIAD_BENCH: 40, Benchmark.MINERVA: 20, Benchmark.GPQA: 10, Benchmark.MMLU_PRO: 80}
    grades = pl.concat([grades_of(benchmark, *(["R"] * 10), *(["W"] * (n - 10))) for benchmark, n in shares.items()])
    row = accuracies(grades, "base").row(by_predicate=pl.col("benchmark") == PAPER_AVERAGE, named=True)
    assert (row["value"], row["n"]) == (pytest.approx((1 / 4 + 1 / 2 + 1 + 1 / 8) / 4), 150)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    fewer = grades.filter(pl.col("benchmark") != Benchmark.GPQA.value)
    assert missing_of_the_paper(fewer["benchmark"]) == [Benchmark.GPQA]
    assert PAPER_AVERAGE not in accuracies(fewer, "base")["benchmark"]
    assert len(OF_THE_PAPER) == 4


def test_the_interval_of_an_average_holds() -> None:
    rng, hits = random.Random(0), 0
    for _ in range(400):
        parts = [
            estimate([float(rng.random() < share) for _ in range(60)], map(str, range(60)), is_share=True) for share in (0.1, 0.3, 0.5, 0.7)
        ]
        found = average(parts)
        assert found.ci_low is not None
        assert found.ci_high is not None
        hits += found.ci_low <= 0.4 <= found.ci_high
    assert 0.92 <= hits / 400 <= 0.98
    alike = Estimate(1.0, 0.9, 1.0, 20, 20)
    assert average([alike, alike]).value == 1.0


def test_benchmarks_that_are_run_are_no_deviation() -> None:
    told = EvaluationSettings(requests_per_user=1, arithmetic_problems=0, benchmarks={Benchmark.MINERVA: "data/minerva"}).deviations([])
    assert "Minerva" not in told[-1]
    assert "OlympiadBench" in told[-1]
