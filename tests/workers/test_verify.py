"""Verification as an asset asks for it: a worker of its own, which no expression can hang."""

from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster.graph import planning
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.reasoning.math_answers import Grade, Solution
from rlhi_dagster.workers import verify

ITEMS = [
    Solution("3", "1 + 2 = 3\nAnswer: 3"),
    Solution("3", "1 + 2 = 3", announced_only=True),
    Solution(r"\frac{1}{2}", r"Thus \boxed{0.5}."),
    Solution("3", "Answer: 4"),
    Solution("3", "Answer: 4", tolerance=1.0),
    Solution("3", "1 + 2 = 3\nAnswer: 3"),
]


def verified(root: Path, items: list[Solution], kind: type[Workers] = Workers) -> dict[Solution, Grade]:
    found: dict[Solution, Grade] = {}

    @dg.asset
    def asks(context: dg.AssetExecutionContext, workers: dg.ResourceParam[Workers]) -> dg.MaterializeResult[None]:
        found.update(workers.verify(context, items))
        return dg.MaterializeResult()

    assert dg.materialize([asks], resources={"workers": kind(root)}).success
    return found


def test_a_worker_verifies_and_equal_solutions_once(tmp_path: Path) -> None:
    found = verified(tmp_path, ITEMS)
    assert [found[item] for item in ITEMS] == [Grade.RIGHT, Grade.NO_ANSWER, Grade.RIGHT, Grade.WRONG, Grade.RIGHT, Grade.RIGHT]
    assert len(found) == 5


def test_nothing_to_verify_starts_no_worker(tmp_path: Path) -> None:
    assert verified(tmp_path, []) == {}
    assert not list(tmp_path.iterdir())


def test_a_plan_starts_no_worker(tmp_path: Path) -> None:
    assert set(verified(tmp_path, ITEMS, planning._Workers).values()) == {Grade.UNDECIDED}
    assert not list(tmp_path.iterdir())


def test_an_expression_that_math_verify_does_not_finish_is_undecided(tmp_path: Path) -> None:
    hangs = Solution("5", r"\boxed{9^{9^{9^9}}}")
    found = verified(tmp_path, [hangs, ITEMS[0]])
    assert (found[hangs], found[ITEMS[0]]) == (Grade.UNDECIDED, Grade.RIGHT)


def test_more_than_a_message_full_comes_back_whole(tmp_path: Path) -> None:
    items = [Solution(str(number), f"Answer: {number if number % 2 else 'none'}") for number in range(verify._PER_MESSAGE + 5)]
    found = verified(tmp_path, items)
    assert len(found) == len(items)
    assert all((found[item] is Grade.RIGHT) == bool(number % 2) for number, item in enumerate(items))


def test_a_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_START_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="did not start"):
        verify.Grader()
