"""PRM800K: which records are used, where the wrong step is, and which corrections become pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.engines.base import ChatAnswer
from rlhi_dagster.preferences.reasoning import correction_requests, read_records, reasoning_errors, reasoning_pairs
from rlhi_dagster.simulation.arithmetic import prm800k
from rlhi_dagster.tables import REASONING_ERRORS, REASONING_PAIRS

EXAMPLES = Path(__file__).parents[2] / "../shared/data/prm800k/original_schema_examples.json"


def step(text: str, rating: int = 1, *, chosen: bool = True) -> dict[str, Any]:
    return {"completions": [{"text": text, "rating": rating}], "human_completion": None, "chosen_completion": 0 if chosen else None}


def record(*steps: dict[str, Any], finish: str = "found_error", problem: str = "What is 1 + 2?", **more: Any) -> dict[str, Any]:
    question = {"problem": problem, "ground_truth_answer": "3"}
    return {"question": question, "label": {"steps": list(steps), "finish_reason": finish}, **more}


WRONG = (step("1 + 2 = 3"), step("3 = 4", -1, chosen=False))


def errors_of(*records: dict[str, Any] | None, most: int = 10) -> tuple[list[dict[str, Any]], dict[str, int]]:
    found, fates = reasoning_errors(iter([(f"f:{number}", each) for number, each in enumerate(records)]), most)
    assert found.schema == REASONING_ERRORS.schema
    return found.to_dicts(), fates


def test_the_solution_ends_with_its_first_wrong_step() -> None:
    (row,), fates = errors_of(record(*WRONG))
    assert (row["solution"], row["first_error_step"], row["feedback"], row["answer"]) == ("1 + 2 = 3\n3 = 4", 2, "Step 2 is wrong.", "3")
    assert fates == {"selected": 1}


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
        None,
    ]
    rows, fates = errors_of(*records)
    assert len(rows) == 1
    assert fates == {
        "duplicate": 1,
        "last_step_not_wrong": 2,
        "malformed_record": 2,
        "no_error_found": 2,
        "quality_control_or_screening": 2,
        "selected": 1,
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


def test_lines_that_are_no_object_are_reported_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"a": 1}\nnot json\n')
    (tmp_path / "a.jsonl").write_text("[1]\n")
    assert list(read_records(str(tmp_path / "*.jsonl"))) == [("a.jsonl:1", None), ("b.jsonl:1", {"a": 1}), ("b.jsonl:2", None)]
    with pytest.raises(ValueError, match=r"nothing\*\.jsonl.*prm800k"):
        list(read_records(str(tmp_path / "nothing*.jsonl")))


@pytest.mark.parametrize(
    ("text", "finish", "known", "correct", "reason"),
    [
        ("1 + 2 = 3\nAnswer: 3", "stop", "3", True, None),
        ("Answer: 4", "stop", "3", False, "correction_is_wrong"),
        ("no number", "stop", "3", False, "correction_is_wrong"),
        ("Answer: 3", "length", "3", None, "correction_failed"),
        (None, None, "3", None, "correction_failed"),
        ("", "stop", "3", None, "correction_failed"),
        ("Answer: 3", "stop", None, None, "answer_unknown"),
        ("Answer: 3", "stop", r"x", None, "answer_unknown"),
    ],
)
def test_drop_reasons(text: str | None, finish: str | None, known: str | None, correct: bool | None, reason: str | None) -> None:
    source = record(*WRONG)
    source["question"]["ground_truth_answer"] = known
    errors, _ = reasoning_errors(iter([("f:1", source)]), 10)
    pairs = reasoning_pairs(errors, [ChatAnswer(text, None, finish, 1, 1)], "m")
    assert pairs.schema == REASONING_PAIRS.schema
    row = pairs.row(0, named=True)
    assert (row["is_chosen_correct"], row["drop_reason"], row["is_kept"]) == (correct, reason, reason is None)
    assert row["rejected"] == "1 + 2 = 3\n3 = 4"


def test_the_policy_sees_problem_solution_and_remark() -> None:
    errors, _ = reasoning_errors(iter([("f:1", record(*WRONG))]), 10)
    (request,) = correction_requests(errors)
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
    assert request.messages[2]["content"] == "Step 2 is wrong."
