"""The page on own logs, which no run makes, and the report asset where nothing was trained."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import evaluation
from rlhi_dagster import profiles
from rlhi_dagster.base import plots
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import FEEDBACK_LABELS, UNMET_WISHES
from rlhi_dagster.cli import main
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels import agreement, offline
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.report import own_logs
from tests.built import built, upstream

ATTACK = "<script>alert(1)</script>"
SHORT, ERROR = "Make it shorter, please.", "That fails with KeyError: 'tulips'."


def embed(texts: list[str]) -> np.ndarray:
    """The same direction for all: every text is like every other."""
    return np.ones((len(texts), 4), np.float32) / 2


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight users: six want it shorter, twice each, one has an error, one says nothing. The first asks for an attack; one row is broken."""
    rows = []
    for user in range(8):
        for n in range(2):
            said = SHORT if user < 6 else ERROR
            request = f"{ATTACK} How do I grow tulips {n}?" if user == 0 else f"How do I grow {'mint' if user % 2 else 'rice'} {n}?"
            messages = [("user", request), ("assistant", "In a pot."), *([("user", said), ("assistant", "Pot.")] if user < 7 else [])]
            rows.append(
                {
                    "id": f"c{user}-{n}",
                    "user": f"u{user}",
                    "created": f"2026-0{1 + user % 3}-0{1 + n}T10:00:00Z",
                    "model": f"m-{user % 2}",
                    "messages": [{"role": role, "content": text} for role, text in messages],
                }
            )
    file = tmp_path / "support.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "broken", "messages": [{"role": "user", "content": "?"}]}\n')
    return file


def labelled(found: offline.FollowUps) -> pl.DataFrame:
    frame = found.frame.with_columns(
        label=pl.lit(Feedback.REATTEMPT_WITH_FEEDBACK.value),
        probability=0.9,
        reattempt_probability=0.9,
        span=pl.lit(None, pl.String),
        labeller=pl.lit("made up"),
        call_ids=pl.lit([], pl.List(pl.String)),
    )
    return FEEDBACK_LABELS.conform(frame.select(*FEEDBACK_LABELS.columns))


@pytest.fixture
def own(source: Path) -> own_logs.OwnLogs:
    found = offline.read_follow_ups(str(source))
    return own_logs.survey(str(source), found, labelled(found), embed, 3)


def test_the_page_accounts_for_rows_and_shows_groups_of_enough_users_alone(own: own_logs.OwnLogs) -> None:
    page = own_logs.render(own, "support.gold.csv")
    assert "17 rows in = 16 accepted + 1 quarantined (unanswered_only 1)" in page
    wished = page[page.index('<section id="wishes">') : page.index('<section id="reattempts">')]
    assert "short answers" in wished
    assert SHORT in wished
    assert "it does not work" not in wished  # one user alone
    assert "KeyError" not in wished
    assert "rlhi why" not in page
    assert "The paper reports" not in page
    lines = page[page.index('<section id="lines">') : page.index('<section id="examples">')]
    assert "Prefers short answers." in lines
    assert "9 of 9" in lines


def test_rates_are_by_model_and_by_month_with_intervals(own: own_logs.OwnLogs) -> None:
    page = own_logs.render(own, "support.gold.csv")
    rates = page[page.index('<section id="reattempts">') : page.index('<section id="topics">')]
    assert {"m-0", "m-1", "2026-01", "2026-02", "2026-03"} <= set(re.findall(r'<th scope="row">([^<]+)</th>', rates))
    assert 'aria-label="Re-attempts with feedback by model"' in rates
    assert re.search(r"100\.0\u202f%<small>\[[\d.]+, 100\.0\]</small>", rates)


def test_text_of_users_is_escaped_and_the_page_asks_for_nothing(own: own_logs.OwnLogs) -> None:
    page = own_logs.render(own, "support.gold.csv")
    assert ATTACK not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "://" not in re.sub(r"http://www\.w3\.org/[^\"]*", "", page)


def test_labels_to_correct_are_ten_of_each_and_can_be_read_back(own: own_logs.OwnLogs, tmp_path: Path) -> None:
    file = tmp_path / "support.gold.csv"
    own_logs.gold(own).write_csv(file)
    gold = agreement.read_gold(file)
    assert len(gold) == own_logs.EXAMPLES
    assert set(gold["message_index"]) == {2}
    assert own_logs.gold(own)["follow_up"].str.starts_with("“").all()


def test_pairs_that_would_follow_are_counted_with_what_they_cost(own: own_logs.OwnLogs) -> None:
    rows = {row[0]: list(row[1:]) for row in own_logs.pairs_table(own).rows}
    rewrites = rows["a rewrite with the complaint in view, over the original"]
    assert rewrites[0] == rewrites[2] == "14"
    assert rows["a reply that was edited, over the original"][:3] == ["0", "0", "0"]
    read = sum(
        len(text)
        for row in own.turns.filter(pl.col("turn") == 1).join(own.turns.filter(pl.col("turn") == 2), on="conversation_id").to_dicts()
        for text in (row["prompt"], row["reply"], row["prompt_right"])
    )
    assert rewrites[3] == f"{round(read / 4):,}"


def test_the_summary_says_no_word_of_a_user(own: own_logs.OwnLogs) -> None:
    said = own_logs.summary(own)
    assert "16 conversations; 30 user messages" in said
    assert "short answers (12 by 6 users)" in said
    assert "14 rewrites" in said
    assert "tulips" not in said.replace("commonest topics", "") or "tulips" in own.topics["topic"].str.join(" ").item()
    assert SHORT not in said


def test_the_command_writes_the_page_and_keeps_corrections(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    page, gold = tmp_path / "page.html", tmp_path / "page.gold.csv"
    gold.write_text("conversation_hash,message_index,label\n")
    monkeypatch.setattr(sys, "argv", ["rlhi", "logs", str(source), "--out", str(page), "--min-users", "3"])
    main.main()
    assert "What your logs hold" in page.read_text()
    assert gold.read_text() == "conversation_hash,message_index,label\n"
    assert page.as_uri() in capsys.readouterr().out


@pytest.mark.parametrize("count", [3, 6, 12])
def test_labels_of_months_do_not_overprint(count: int) -> None:
    months = [f"2025-{month:02}" for month in range(1, count + 1)]
    series = [plots.Series(plots.Mark("--s-1"), [(place, 0.5, 0.4, 0.6) for place in range(count)])]
    drawn = plots.category_points(months, series, axis="month", limits=(0.0, 1.0))
    drawn.canvas.draw()
    labels = [label for label in drawn.axes[0].get_xticklabels() if label.get_text()]
    if labels[0].get_rotation():
        places = [label.get_window_extent().x1 for label in labels]
        height = labels[0].get_fontsize() * drawn.dpi / 72
        assert min(right - left for left, right in pairwise(places)) > height
    else:
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_report_of_own_logs_is_made_before_any_training(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_SALT", "a secret")
    profile = profiles.load("sample", str(source)).placed(tmp_path, {})
    lake = Lake(root=str(tmp_path / "lake"))
    row = {"turn_id": "t", "user_id": "u", "month": "2023-04", "wish": "other wishes", "topic": "other topics", "call_ids": []}
    lake.write("unmet_wishes", UNMET_WISHES.conform(pl.DataFrame([dict.fromkeys(UNMET_WISHES.columns) | row], schema=UNMET_WISHES.schema)))
    found = built(profile, evaluation.report)
    resources = {"settings": Settings(profile), "lake": lake}
    done = dg.materialize([*found, *upstream(profile, "unmet_wishes")], selection=["report"], resources=resources)
    assert done.success
    page = (tmp_path / "lake" / "report" / "index.html").read_text()
    assert "No count of rewrites yet" in page
    assert "count of to" not in page
    numbers = json.loads((tmp_path / "lake" / "report" / "report.json").read_text())
    assert (numbers["comparisons"], "scores" in numbers) == ([], False)
