"""Two reports side by side: what is subtracted, with which interval, and what is said of what cannot be."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.base.intervals import difference_of_independent
from rlhi_dagster.cli import compare_reports_command
from rlhi_dagster.report import compared
from rlhi_dagster.report.compared import Compared, Row
from rlhi_dagster.report.write import NUMBERS_VERSION


def score(recipe: str, value: float | None, metric: str = "all_preferences_met", judge: str = "town", **more: Any) -> dict[str, Any]:
    ends = {"ci_low": None, "ci_high": None} if value is None else {"ci_low": value - 0.03, "ci_high": value + 0.04}
    return {"recipe": recipe, "benchmark": "user_eval", "metric": metric, "judge": judge, "value": value, "n": 100, **ends, **more}


def report(*scores: dict[str, Any], source: str = "town", items: str = "a1", base: str = "p@1", **more: Any) -> dict[str, Any]:
    head = {"Profile": "sample", "Source": source, "Data version of eval_prompts": items}
    models = {"base": {"model": base}, "dpo_rewrites": {"model": "w@1"}}
    return {"version": NUMBERS_VERSION, "headline": head, "deviations": [], "recipes": models, "scores": list(scores)} | more


def only(found: Compared) -> Row:
    (row,) = found.rows
    return row


def test_the_interval_of_a_difference_is_made_of_both() -> None:
    """0.6 [0.57, 0.64] minus 0.5 [0.47, 0.54]: down by 0.03 and 0.04, up by 0.04 and 0.03, which are sides of 0.05."""
    assert difference_of_independent((0.6, 0.57, 0.64), (0.5, 0.47, 0.54)) == pytest.approx((0.1, 0.05, 0.15))
    assert difference_of_independent((0.6, None, 0.64), (0.5, 0.47, 0.54)) == (pytest.approx(0.1), None, None)
    # Newcombe's example (1998, case a): 56 of 70 and 48 of 80 with Wilson's intervals; method 10 gives [0.0524, 0.3339].
    found = difference_of_independent((0.8, *wilson(56, 70)), (0.6, *wilson(48, 80)))
    assert [round(end, 4) for end in found] == [0.2, 0.0524, 0.3339]


def wilson(hits: int, n: int) -> tuple[float, float]:
    z, share = 1.959964, hits / n
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def test_what_both_have_is_subtracted_and_what_one_has_is_shown() -> None:
    left, right = report(score("dpo_rewrites", 0.6), score("dpo_edits", 0.4)), report(score("dpo_rewrites", 0.5), score("mine", 0.3))
    both, first, second = compared.compare(left, right).rows
    assert (both.difference, both.ci_low, both.ci_high) == pytest.approx((0.1, 0.05, 0.15))
    assert (first.key[0], first.right, first.difference, first.remark) == ("dpo_edits", None, None, "only A has it")
    assert (second.key[0], second.left, second.remark) == ("mine", None, "only B has it")


def test_numbers_of_other_judges_logs_or_bases_are_not_subtracted() -> None:
    by_model = compared.compare(report(score("a", 0.6)), report(score("a", 0.5, judge="model@1")))
    assert [row.difference for row in by_model.rows] == [None, None]
    assert "Judges of A alone: town." in by_model.settings
    elsewhere = compared.compare(report(score("a", 0.6)), report(score("a", 0.5), source="village"))
    assert only(elsewhere).remark == "the users are those of other logs"
    won = [score("a", 0.6, "win_rate")], [score("a", 0.5, "win_rate")]
    assert only(compared.compare(report(*won[0]), report(*won[1]))).difference == pytest.approx(0.1)
    another = compared.compare(report(*won[0]), report(*won[1], base="q@2"))
    assert only(another).remark == "each is against the base of its own run"
    assert "The base is another model: A p@1, B q@2." in another.settings
    silent = compared.compare(report(*won[0]), report(*won[1], recipes={}))
    assert only(silent).remark == "each is against the base of its own run"
    assert "Whether both start from the same base cannot be told: B does not say." in silent.settings
    assert only(compared.compare(report(score("a", 0.6)), report(score("a", 0.5), base="q@2"))).difference == pytest.approx(0.1)
    assert only(compared.compare(report(score("a", None)), report(score("a", 0.5)))).remark == "nothing was measured"
    public = [report(source=source, benchmark_scores=[score("a", value, "accuracy")]) for source, value in (("town", 0.4), ("logs", 0.2))]
    assert only(compared.compare(*public)).difference == pytest.approx(0.2), "a public benchmark asks the same of both"


def test_what_differs_is_told_in_sentences() -> None:
    left = report(score("dpo_rewrites", 0.6), deviations=["16 candidates.", "The judge is `town`."])
    right = report(score("dpo_rewrites", 0.5), items="b2", deviations=["The judge is `town`.", "4 candidates."])
    found = compared.compare(left, right).settings
    assert found == [
        "Data version of eval_prompts: A a1, B b2.",
        "They were evaluated on different requests, so a difference is one of users, too.",
        "Deviations from the paper of A alone: 16 candidates.",
        "Deviations from the paper of B alone: 4 candidates.",
        "The weights are the very same in both of dpo_rewrites.",
    ]
    assert compared.compare(left, left).settings[0].startswith("Both were evaluated on the same requests; the intervals")


def test_a_file_that_cannot_be_compared_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    lacking = score("a", 0.6)
    del lacking["n"]
    for content, told in (
        ("{", "is no JSON: name the report.json"),
        ("[]", "is no report of this project"),
        (json.dumps(report() | {"version": 7}), f"has version 7 .* compares version {NUMBERS_VERSION}: materialize `report` again"),
        (json.dumps(report(lacking)), "row 0 of scores lacks n"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=told):
            compared.read(file)


def given(folder: Path, **more: Any) -> argparse.Namespace:
    sides = [report(score("dpo_rewrites", 0.6), score("base", 0.2, "error_rate")), report(score("dpo_rewrites", 0.5))]
    sides[1]["headline"]["Profile"] = "mine\x1b[31m<b>"
    files = [folder / "a.json", folder / "b.json"]
    for file, side in zip(files, sides, strict=True):
        file.write_text(json.dumps(side))
    return argparse.Namespace(**{"left": files[0], "right": files[1], "json": False, "out": None} | more)


def test_the_command_prints_the_main_numbers_and_counts_the_rest(tmp_path: Path) -> None:
    shown = compare_reports_command.run(given(tmp_path)).splitlines()
    place = shown.index("all_preferences_met on user_eval, judge town")
    assert shown[place + 1].split() == ["recipe", "A", "B", "A", "minus", "B"]
    cells = ["dpo_rewrites", "0.600 [0.570, 0.640] n=100", "0.500 [0.470, 0.540] n=100", "+0.100 [+0.050, +0.150]"]
    assert shown[place + 2].split("  ") == cells
    assert "\x1b" not in "".join(shown)
    assert shown[-1].startswith("1 further numbers")


def test_json_has_every_number_and_the_page_is_whole(tmp_path: Path) -> None:
    page = tmp_path / "two.html"
    told = json.loads(compare_reports_command.run(given(tmp_path, json=True, out=page)))
    assert [row["of"]["metric"] for row in told["rows"]] == ["all_preferences_met", "error_rate"]
    assert told["rows"][0]["left"] == {"value": 0.6, "ci_low": 0.57, "ci_high": 0.64, "n": 100}
    shown = page.read_text()
    assert "+10.0 points" in shown
    assert 'role="img" aria-label="all preferences met on user_eval: A minus B"' in shown
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "<script" not in shown
    with pytest.raises(ValueError, match=r"the page must end in \.html"):
        compare_reports_command.run(given(tmp_path, out=tmp_path / "two.txt"))
