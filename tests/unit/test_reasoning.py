"""PRM800K: which records are used, where the wrong step is, what a simulated user may say, and which corrections become pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.base.tables import REASONING_ERRORS, REASONING_PAIRS
from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.reasoning.corrections import correction_requests, corrections, reasoning_pairs, speaks_of_the_remark, to_verify
from rlhi_dagster.reasoning.math_answers import Grade, Solution, grade
from rlhi_dagster.reasoning.prm800k import ErroneousSolution, erroneous_solutions, read_records
from rlhi_dagster.reasoning.simulated_user import fault, remark_requests, spoken, templated
from rlhi_dagster.simulation.town.arithmetic import prm800k

PUBLISHED = Path(__file__).parents[2] / "../shared/data/prm800k"
EXAMPLES, DECODED = PUBLISHED / "original_schema_examples.json", PUBLISHED / "solutions.jsonl"
ODD = Path(__file__).parents[2] / "../shared/data/odd_inputs/H0_prm800k"


def step(text: str, rating: int = 1, *, chosen: bool = True) -> dict[str, Any]:
    return {"completions": [{"text": text, "rating": rating}], "human_completion": None, "chosen_completion": 0 if chosen else None}


def record(*steps: dict[str, Any], finish: str = "found_error", problem: str = "What is 1 + 2?", **more: Any) -> dict[str, Any]:
    question = {"problem": problem, "ground_truth_answer": "3"}
    return {"question": question, "label": {"steps": list(steps), "finish_reason": finish}, **more}


WRONG = (step("1 + 2 = 3"), step("3 = 4", -1, chosen=False))


def decoded(*ratings: int | None, final: str | None = None, problem: str = "What is 1 + 2?") -> dict[str, Any]:
    steps = [{"text": f"line {number}", "rating": rating} for number, rating in enumerate(ratings, 1)]
    return {"problem": problem, "steps": steps, "final_answer": final, "all_steps_positive": all(rating == 1 for rating in ratings)}


def solutions_of(*records: dict[str, Any] | None, most: int = 10) -> tuple[list[ErroneousSolution], dict[str, int]]:
    return erroneous_solutions(iter([(f"f:{number}", each) for number, each in enumerate(records)]), most)


def errors_of(*records: dict[str, Any] | None, most: int = 10) -> tuple[list[dict[str, Any]], dict[str, int]]:
    found, fates = solutions_of(*records, most=most)
    errors = templated(found)
    assert errors.schema == REASONING_ERRORS.schema
    return errors.to_dicts(), fates


def test_the_solution_ends_with_its_first_wrong_step() -> None:
    (row,), fates = errors_of(record(*WRONG))
    assert (row["solution"], row["first_error_step"], row["feedback"], row["answer"]) == ("1 + 2 = 3\n3 = 4", 2, "Step 2 is wrong.", "3")
    assert (row["steps"], row["simulated_user"], row["error"], row["call_id"]) == (["1 + 2 = 3", "3 = 4"], "template", None, None)
    assert fates == {"selected": 1}


def test_a_decoded_solution_ends_with_its_first_wrong_step_too() -> None:
    (row,), fates = errors_of(decoded(1, 0, -1, 1, -1, final="4"), decoded(1, 1, final="3"), decoded(1, 0))
    assert fates == {"no_error_found": 2, "selected": 1}
    assert (row["solution"], row["first_error_step"], row["feedback"]) == ("line 1\nline 2\nline 3", 3, "Step 3 is wrong.")


def test_the_final_answer_of_a_decoded_solution_is_its_own_and_not_the_truth() -> None:
    (row,), _ = errors_of(decoded(1, -1, final="4"))
    assert row["answer"] is None
    assert row["steps"][-1] == "line 2\n\n# Answer\n\n4"


def test_every_record_has_one_fate() -> None:
    records = [
        record(*WRONG),
        record(*WRONG),
        record(*WRONG, is_quality_control_question=True),
        record(*WRONG, is_initial_screening_question=True),
        record(*WRONG, finish="solution"),
        record(*WRONG, finish="give_up"),
        record(step("1 + 2 = 3")),
        record(),
        {"question": {}, "label": None},
        {"label": {"finish_reason": "found_error", "steps": [{}]}, "question": {"problem": "p"}},
        record(step("1 + 2 = 3"), step(" ", -1, chosen=False)),
        {"problem": "p", "steps": ["no object"]},
        {"problem": None, "steps": [{"text": "x", "rating": -1}]},
        {"text": "of neither layout"},
        decoded(1, -1),
        decoded(1, -1, problem="What is 2 + 2?"),
        decoded(1, 1),
        None,
    ]
    rows, fates = errors_of(*records)
    assert len(rows) == 3
    assert sum(fates.values()) == len(records)
    assert fates == {
        "duplicate": 1,
        "last_step_not_wrong": 2,
        "malformed_record": 6,
        "no_error_found": 3,
        "quality_control_or_screening": 2,
        "selected": 3,
        "unreadable_line": 1,
    }


def test_the_limit_draws_the_same_ones_in_any_order_and_is_counted() -> None:
    records = [record(*WRONG, problem=f"Problem {number}") for number in range(20)]
    rows, fates = errors_of(*records, most=6)
    assert fates == {"selected": 6, "beyond_limit": 14}
    assert errors_of(*reversed(records), most=6)[0] == rows


def test_a_human_completion_counts_as_the_step_shown() -> None:
    human = {
        "completions": [{"text": "no", "rating": -1}],
        "human_completion": {"text": "1 + 2 = 3", "rating": None},
        "chosen_completion": None,
    }
    (row,), _ = errors_of(record(human, step("3 = 4", -1, chosen=False)))
    assert row["solution"] == "1 + 2 = 3\n3 = 4"


def test_the_towns_problems_are_all_read() -> None:
    records = prm800k(200, 5)
    rows, fates = errors_of(*records, most=1000)
    assert sum(fates.values()) == 200
    assert set(fates) == {"selected", "duplicate", "no_error_found", "quality_control_or_screening"}
    assert len(rows) == fates["selected"] > 50


def test_published_records_are_read() -> None:
    if not EXAMPLES.is_file():
        pytest.skip("no PRM800K examples beside the repository")
    records = json.loads(EXAMPLES.read_text())
    rows, fates = errors_of(*records)
    assert fates == {"no_error_found": 4, "selected": 2} or fates == {"no_error_found": 4, "selected": 1, "duplicate": 1}
    wrong = [each for each in records if each["label"]["finish_reason"] == "found_error"]
    for row in rows:
        source = next(each for each in wrong if each["question"]["problem"] == row["problem"])
        last = source["label"]["steps"][-1]["completions"]
        assert row["first_error_step"] == len(source["label"]["steps"])
        assert any(row["solution"].endswith(each["text"]) for each in last if each["rating"] == -1)
        assert row["answer"] == source["question"]["ground_truth_answer"]


def test_published_decoded_records_are_read() -> None:
    if not DECODED.is_file():
        pytest.skip("no decoded PRM800K solutions beside the repository")
    found, fates = erroneous_solutions(read_records(str(DECODED)), 10_000)
    assert sum(fates.values()) == 1391
    assert set(fates) == {"selected", "duplicate", "no_error_found"}
    rated = {
        (record["problem"], tuple((step["text"], step["rating"]) for step in record["steps"]))
        for _, record in read_records(str(DECODED))
        if record
    }
    for problem, steps in rated:
        assert [rating for _, rating in steps].count(-1) <= 1, problem
    wrong = {(problem, tuple(text for text, _ in steps)) for problem, steps in rated if steps[-1][1] == -1}
    for solution in found:
        last = solution.steps[-1].split("# Answer")[0].rstrip("\n")
        assert solution.answer is None
        assert {(solution.problem, solution.steps), (solution.problem, (*solution.steps[:-1], last))} & wrong


def test_lines_that_are_no_object_are_reported_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"a": 1}\nnot json\n')
    (tmp_path / "a.jsonl").write_text("[1]\n")
    assert list(read_records(str(tmp_path / "*.jsonl"))) == [("a.jsonl:1", None), ("b.jsonl:1", {"a": 1}), ("b.jsonl:2", None)]
    with pytest.raises(ValueError, match=r"nothing\*\.jsonl.*prm800k"):
        list(read_records(str(tmp_path / "nothing*.jsonl")))


def test_no_line_ends_a_run(tmp_path: Path) -> None:
    good = json.dumps(record(*WRONG))
    lines = [
        f"\ufeff{good}".encode(),
        f"{good}\r".encode(),
        b"",
        good.replace("What", "Whät").encode("latin-1"),
        b"[" * 100_000,
        b'{"label": ' * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        good.replace('"3"', "NaN").encode(),
        b"\x00\x00",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found = list(read_records(str(tmp_path / "a.jsonl")))
    assert [where for where, each in found if each] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:8"]
    assert [where for where, each in found if each is None] == [f"a.jsonl:{number}" for number in (4, 5, 6, 7, 9)]
    _, fates = erroneous_solutions(iter(found), 10)
    assert fates == {"selected": 1, "duplicate": 2, "unreadable_line": 5}


@pytest.mark.parametrize(
    ("spoil", "fates"),
    [
        (lambda whole: whole, {"selected": 2}),
        (lambda whole: whole + bytes(64), {"selected": 2}),
        (lambda whole: whole + b"trailing", {"selected": 2}),
        (lambda whole: whole + gzip.compress(b"\n" + json.dumps(record(*WRONG, problem="c")).encode()), {"selected": 3}),
        (lambda whole: whole[:-6], {"selected": 2, "unreadable_line": 1}),
        (lambda whole: whole[:-8] + bytes(4) + whole[-4:], {"selected": 2, "unreadable_line": 1}),
    ],
)
def test_a_compressed_file_is_read_as_far_as_it_goes(spoil: Callable[[bytes], bytes], fates: dict[str, int], tmp_path: Path) -> None:
    plain = "".join(json.dumps(record(*WRONG, problem=problem)) + "\n" for problem in "ab")
    (tmp_path / "a.jsonl.gz").write_bytes(spoil(gzip.compress(plain.encode())))
    assert erroneous_solutions(read_records(str(tmp_path)), 10)[1] == fates


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ground_truth_answer": 3}, "3"),
        ({"ground_truth_answer": 3.0}, "3"),
        ({"ground_truth_answer": 0.5}, "0.5"),
        ({"ground_truth_answer": float("nan")}, None),
        ({"ground_truth_answer": None}, None),
        ({"ground_truth_answer": " "}, None),
        ({"ground_truth_answer": ["3"]}, "malformed_record"),
        ({"problem": 3}, "malformed_record"),
        ({"problem": ["What?"]}, "malformed_record"),
    ],
)
def test_a_known_answer_is_a_text_or_a_number(changes: dict[str, Any], expected: str | None) -> None:
    given = record(*WRONG)
    given["question"] |= changes
    found, fates = solutions_of(given)
    assert fates == {expected: 1} if expected == "malformed_record" else [each.answer for each in found] == [expected]


@pytest.mark.parametrize(
    ("first", "fate"),
    [
        ({"chosen_completion": 0.0}, "selected"),
        ({"chosen_completion": float("nan")}, "selected"),
        ({"chosen_completion": -1}, "malformed_record"),
        ({"chosen_completion": 7}, "malformed_record"),
        ({"chosen_completion": "0"}, "malformed_record"),
        ({"completions": [{"text": None, "rating": 1}]}, "malformed_record"),
        ({"completions": [{"text": 3, "rating": 1}]}, "malformed_record"),
        ({"completions": [{"text": "a", "rating": "1"}]}, "malformed_record"),
        ({"completions": [{"text": "half \ud83d", "rating": 1.0}]}, "selected"),
        ({"completions": []}, "malformed_record"),
        ({"completions": 3}, "malformed_record"),
    ],
)
def test_an_odd_step_costs_its_record_at_most(first: dict[str, Any], fate: str) -> None:
    rows, fates = errors_of(record(step("1 + 2 = 3") | first, WRONG[1]))
    assert fates == {fate: 1}
    assert all("\ud83d" not in row["solution"] for row in rows)


def test_odd_files_are_read_without_an_error() -> None:
    if not ODD.is_dir():
        pytest.skip("no odd PRM800K files (odd_inputs/H0_prm800k) beside the repository")
    one = {"selected": 1}
    expected = {"bom": one, "crlf": one, "gz": one, "nan": one, "one": one, "latin1": {"selected": 1, "duplicate": 1, "unreadable_line": 1}}
    found = {file.name.partition(".")[0]: erroneous_solutions(read_records(str(file)), 10)[1] for file in sorted(ODD.glob("*.jsonl*"))}
    assert found.pop("deep") == {"selected": 1, "unreadable_line": 1}
    assert found == expected


SOLUTION = ErroneousSolution("What is 17 + 25 + 100?", ("17 + 25 = 52", "52 + 100 = 152"), "142")


@pytest.mark.parametrize(
    ("remark", "reason"),
    [
        ("Step 2 does not follow: look at the sum again.", None),
        ("In step #2 you added the tens wrongly.", None),
        ("Check steps 2 and on; you need not start from 17 again.", None),
        ("", "empty_remark"),
        ("The second line is wrong.", "remark_misses_the_step"),
        ("Step 1 is wrong.", "remark_misses_the_step"),
        ("Step 21 is wrong.", "remark_misses_the_step"),
        ("Step 2 is wrong, it should be 142.", "remark_reveals_the_answer"),
        ("Step 2 is wrong: $142$.", "remark_reveals_the_answer"),
        ("Step 2 is wrong, surely not 1421 or 0.142 or 142.5.", None),
    ],
)
def test_what_a_simulated_user_may_say(remark: str, reason: str | None) -> None:
    assert fault(SOLUTION, remark) == reason


def test_an_answer_that_problem_or_solution_say_is_no_secret() -> None:
    assert fault(ErroneousSolution("Is it 142 or 143?", ("a", "b"), "142"), "Step 2 is wrong, think of 142.") is None
    assert fault(ErroneousSolution("Add.", ("142 = 142", "b"), "142"), "Step 2 is wrong, think of 142.") is None
    assert fault(ErroneousSolution("Add.", ("a", "b"), None), "Step 2 is wrong, it is 142.") is None
    assert fault(ErroneousSolution("Add.", ("a", "b"), "2"), "Step 2 is wrong.") is None
    assert fault(ErroneousSolution("Add.", ("a", "b"), "2"), "Step 2 is wrong, take 2.") == "remark_reveals_the_answer"


@given(st.integers(1, 10**6), st.text(alphabet="abc ., ", max_size=20))
def test_the_answer_is_found_wherever_it_stands(number: int, around: str) -> None:
    told = ErroneousSolution("Add.", ("a",), str(number))
    assert fault(told, f"Step 1 is off {around} {number} {around}") == "remark_reveals_the_answer"
    assert fault(told, f"Step 1 is off {around} x{number}y {around}") is None


def test_the_simulated_user_sees_problem_and_numbered_steps_and_which_is_wrong() -> None:
    (request,) = remark_requests([ErroneousSolution("Mind {steps}.", ("a {wrong}", "b"), "142")])
    text = request.messages[0]["content"]
    assert "Mind {steps}." in text
    assert '<step number="1">\na {wrong}\n</step>\n<step number="2">\nb\n</step>' in text
    assert "Step 2 is the first wrong step" in text
    assert "142" not in text


def test_remarks_that_fail_are_error_rows() -> None:
    solutions = [ErroneousSolution(f"Problem {number}", ("a",), "99") for number in range(4)]
    answers = [
        ChatAnswer(" Step 1 is off. ", None, "stop", 1, 1, call_id="c0"),
        ChatAnswer("Step 1 is off by", None, "length", 1, 1, call_id="c1"),
        ChatAnswer(None, "prompt_too_long: 9 tokens", None, 1, 0, call_id="c2"),
        ChatAnswer("Step 1: 99", None, "stop", 1, 1, call_id="c3"),
    ]
    errors = spoken(solutions, answers, "model@1")
    assert errors.schema == REASONING_ERRORS.schema
    by_problem = {row["problem"]: (row["feedback"], row["error"], row["call_id"]) for row in errors.to_dicts()}
    assert by_problem == {
        "Problem 0": ("Step 1 is off.", None, "c0"),
        "Problem 1": (None, "cut_off_at_max_new_tokens", "c1"),
        "Problem 2": (None, "prompt_too_long: 9 tokens", "c2"),
        "Problem 3": (None, "remark_reveals_the_answer", "c3"),
    }
    assert len(correction_requests(errors, "dialogue")) == 1
    pairs = reasoning_pairs(
        corrections(errors, [ChatAnswer("Answer: 99", None, "stop", 1, 1)]),
        {Solution("99", "Answer: 99"): Grade.RIGHT} | {Solution("99", "a", announced_only=True): Grade.NO_ANSWER},
        "m",
    )
    assert Counter(tuple(reasons) for reasons in pairs["drop_reasons"]) == {("remark_failed",): 3, (): 1}


def pair_of(source: dict[str, Any], answer: ChatAnswer, grades: dict[Solution, Grade] | None = None) -> dict[str, Any]:
    corrected = corrections(templated(solutions_of(source)[0]), [answer])
    wanted = to_verify(corrected)
    pairs = reasoning_pairs(corrected, grades or {item: grade(item) for item in wanted}, "m")
    assert pairs.schema == REASONING_PAIRS.schema
    return pairs.row(0, named=True)


@pytest.mark.parametrize(
    ("text", "finish", "known", "correct", "reasons"),
    [
        ("1 + 2 = 3\nAnswer: 3", "stop", "3", True, []),
        ("Answer: 4", "stop", "3", False, ["correction_is_wrong"]),
        ("no number", "stop", "3", False, ["correction_is_wrong"]),
        ("Answer: 3", "length", "3", None, ["correction_failed"]),
        (None, None, "3", None, ["correction_failed"]),
        (" ", "stop", "3", None, ["correction_failed"]),
        ("Answer: 3", "stop", None, None, ["answer_unknown"]),
        ("Answer: 3", "stop", " ", None, ["answer_unknown"]),
        ("Answer: 3", "stop", "x", False, ["correction_is_wrong"]),
        ("You're right, step 2 was wrong.\nAnswer: 3", "stop", "3", True, ["mentions_feedback"]),
        ("Sorry for the mistake.\nAnswer: 4", "stop", "3", False, ["correction_is_wrong", "mentions_feedback"]),
    ],
)
def test_drop_reasons(text: str | None, finish: str | None, known: str | None, correct: bool | None, reasons: list[str]) -> None:
    source = record(*WRONG)
    source["question"]["ground_truth_answer"] = known
    row = pair_of(source, ChatAnswer(text, None, finish, 1, 1, call_id="c"))
    assert (row["is_chosen_correct"], row["drop_reasons"], row["is_kept"]) == (correct, reasons, not reasons)
    assert (row["rejected"], row["is_rejected_correct"], row["call_ids"]) == ("1 + 2 = 3\n3 = 4", None, ["c"])


def test_an_original_that_is_right_all_the_same_makes_no_pair() -> None:
    wrong_way = (step("1 + 2 = 3"), step("because 5 = 5. Answer: 3", -1, chosen=False))
    row = pair_of(record(*wrong_way), ChatAnswer("Answer: 3", None, "stop", 1, 1))
    assert (row["is_chosen_correct"], row["is_rejected_correct"], row["drop_reasons"]) == (True, True, ["original_is_right"])
    row = pair_of(record(step("Answer: 4", -1, chosen=False)), ChatAnswer("Answer: 3", None, "stop", 1, 1))
    assert (row["is_rejected_correct"], row["is_kept"]) == (False, True)


def test_what_could_not_be_told_in_time_is_dropped_as_such() -> None:
    chosen, rejected = Solution("3", "Answer: 3"), Solution("3", "1 + 2 = 3\n3 = 4", announced_only=True)
    for undecided in (chosen, rejected):
        grades = {chosen: Grade.RIGHT, rejected: Grade.WRONG} | {undecided: Grade.UNDECIDED}
        row = pair_of(record(*WRONG), ChatAnswer("Answer: 3", None, "stop", 1, 1), grades)
        assert row["drop_reasons"] == ["verification_failed"]
        assert row["is_chosen_correct" if undecided is chosen else "is_rejected_correct"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 = 3\nAnswer: 3", False),
        ("Step 2: 3 is an error term.", False),
        ("The error in Step 2 is a sign.", True),
        ("Step 2 was wrong, so start again.", True),
        ("The earlier attempt forgot the sign.", True),
        ("You're right. 1 + 2 = 3", True),
    ],
)
def test_corrections_that_speak_of_the_remark(text: str, expected: bool) -> None:
    assert speaks_of_the_remark(text, "What is 1 + 2?") is expected


def test_the_policy_sees_problem_solution_and_remark() -> None:
    errors = templated(solutions_of(record(*WRONG))[0])
    (request,) = correction_requests(errors, "dialogue")
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
    assert request.messages[2]["content"] == "Step 2 is wrong."
    (request,) = correction_requests(errors, "instruction")
    assert [message["role"] for message in request.messages] == ["user"]
    assert all(
        part in request.messages[0]["content"] for part in ("What is 1 + 2?", '<step number="2">\n3 = 4\n</step>', "Step 2 is wrong.")
    )
    assert not correction_requests(errors.with_columns(feedback=pl.lit(None, dtype=pl.String())), "dialogue")


def test_rows_are_conserved_from_records_to_pairs() -> None:
    found, fates = solutions_of(*prm800k(120, 3), most=1000)
    errors = templated(found)
    answers = [
        ChatAnswer(f"Answer: {row['answer'] if number % 3 else 99}", None, "stop", 1, 1) for number, row in enumerate(errors.to_dicts())
    ]
    corrected = corrections(errors, answers)
    pairs = reasoning_pairs(corrected, {item: grade(item) for item in to_verify(corrected)}, "m")
    assert len(pairs) == fates["selected"]
    assert pairs["is_kept"].sum() == len(pairs) - -(-len(pairs) // 3)
    assert set(pairs.filter(~pl.col("is_kept"))["drop_reasons"].explode()) == {"correction_is_wrong"}
