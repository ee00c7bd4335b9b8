"""The account from user messages to rewrite pairs, its picture, and the assets that show it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import preferences
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import FEEDBACK_LABELS, REWRITE_PAIRS, REWRITES, TURNS, USERS, Table
from rlhi_dagster.engines.base import ChatAnswer, RewardAnswer, RewardRequest
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.preferences.drop_account import account, drawing, shares
from rlhi_dagster.preferences.filters import DropReason
from rlhi_dagster.profiles import Profile
from rlhi_dagster.roles.rewriter import rewriter
from tests.built import playing

CONTEXT: Any = None
"""The workers here need none."""

REASONS = list(DropReason)
STRATEGIES = ("feedback", "logged", "scratch")
ASKED = "reattempt_with_feedback"


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def pairs(*given: tuple[str, list[DropReason]]) -> pl.DataFrame:
    rows = [
        {"pair_id": f"p{number}", "strategy": strategy, "drop_reasons": reasons, "is_kept": not reasons}
        for number, (strategy, reasons) in enumerate(given)
    ]
    return table(REWRITE_PAIRS, rows)


LABELS = table(
    FEEDBACK_LABELS,
    [
        {"turn_id": f"t{number}", "user_id": user, "label": name, "reattempt_probability": probability, "is_unanswered": number in (1, 2)}
        for number, (user, name, probability) in enumerate(
            [("ann", ASKED, 0.9), ("ann", ASKED, 0.6), ("ann", ASKED, 0.4), ("eve", ASKED, 0.9), ("ann", "positive", 0.9)]
        )
    ],
)
USERS_FRAME = table(USERS, [{"user_id": "ann", "split": "train"}, {"user_id": "eve", "split": "test"}])


def test_each_step_says_what_is_left_and_the_first_reason_counts() -> None:
    made = pairs(
        ("feedback", []), ("feedback", [DropReason.IDENTICAL_SIDES, DropReason.LENGTH_RATIO]), ("scratch", [DropReason.LENGTH_RATIO])
    )
    found = account(12, LABELS, USERS_FRAME, made, 0.5)
    assert found.filter(strategy="feedback").select("step", "dropped", "left").rows() == [
        ("user messages", 0, 12),
        ("follow-ups", 7, 5),
        ("re-attempts with feedback", 2, 3),
        ("of training users", 1, 2),
        ("replies to rewrite", 0, 2),
        ("identical_sides", 1, 1),
        ("kept", 0, 1),
    ]
    assert found.filter(strategy="scratch").select("step", "dropped", "left").rows()[-3:] == [
        ("replies to rewrite", 1, 1),
        ("length_ratio", 1, 0),
        ("kept", 0, 0),
    ]


@given(st.lists(st.tuples(st.sampled_from(STRATEGIES), st.lists(st.sampled_from(REASONS), unique=True, max_size=4)), max_size=30))
def test_what_goes_in_is_kept_or_dropped(given: list[tuple[str, list[DropReason]]]) -> None:
    made = pairs(*((strategy, sorted(reasons, key=REASONS.index)) for strategy, reasons in given))
    found = account(100, LABELS, USERS_FRAME, made, 0.5)
    for strategy in {strategy for strategy, _ in given}:
        steps = found.filter(strategy=strategy)
        taken = steps.filter(step="replies to rewrite")["left"].item()
        kept = steps.filter(step="kept")
        assert taken == steps.filter("is_drop")["dropped"].sum() + kept["left"].item()
        assert kept["dropped"].item() == 0
    share = shares(made)
    assert share["first"].sum() == sum(bool(reasons) for _, reasons in given)
    assert share["any"].sum() == sum(len(reasons) for _, reasons in given)


def test_shares_are_of_the_strategys_pairs_in_the_order_of_reasons() -> None:
    made = pairs(
        ("feedback", []),
        ("feedback", [DropReason.IDENTICAL_SIDES, DropReason.LENGTH_RATIO]),
        ("feedback", [DropReason.LENGTH_RATIO]),
        ("feedback", [DropReason.REWRITE_FAILED]),
        ("scratch", []),
    )
    assert shares(made).rows() == [
        ("feedback", "rewrite_failed", 4, 1, 0.25, 1, 0.25),
        ("feedback", "identical_sides", 4, 1, 0.25, 1, 0.25),
        ("feedback", "length_ratio", 4, 1, 0.25, 2, 0.5),
    ]


def test_only_the_logged_replies_lose_what_nobody_answered() -> None:
    found = account(12, LABELS, USERS_FRAME, pairs(("feedback", []), ("logged", []), ("scratch", [])), 0.5)
    steps = ["of training users", "that got a reply", "replies to rewrite"]
    shown = found.filter(pl.col("step").is_in(steps)).select("strategy", "step", "dropped", "left")
    assert shown.filter(strategy="logged").rows() == [("logged", steps[0], 1, 2), ("logged", steps[1], 1, 1), ("logged", steps[2], 0, 1)]
    assert steps[1] not in shown.filter(pl.col("strategy") != "logged")["step"].to_list()


def test_the_picture_has_a_panel_for_each_strategy_and_a_bar_for_each_step() -> None:
    found = account(12, LABELS, USERS_FRAME, pairs(("feedback", []), ("logged", [DropReason.LENGTH_RATIO])), 0.5)
    figure = drawing(found)
    assert [axes.get_title() for axes in figure.axes] == ["feedback", "logged"]
    assert [text.get_text() for text in figure.axes[1].texts][-2:] == ["0 (−1)", "0"]
    assert not drawing(found.clear()).axes


@dataclass(frozen=True)
class FakeWorkers(Workers):
    """Answers without a process, and remembers who was asked, at which temperature."""

    root: Path = Path("/nowhere")
    asked: list[tuple[str, float]] = field(default_factory=list)
    scored: list[RewardRequest] = field(default_factory=list)

    def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> tuple[list[list[ChatAnswer]], CallStats]:
        ((model, requests),) = batches
        self.asked.append((model.name, sampling.temperature))
        return [[ChatAnswer("new", None, "stop", 1, 1) for _ in requests]], CallStats(requests=len(requests))

    def score(self, context: Any, model: Any, requests: Any, engine: Any) -> tuple[list[RewardAnswer], CallStats]:
        self.scored.extend(requests)
        return [RewardAnswer(float(len(each.messages[-1]["content"])), None, 1) for each in requests], CallStats(requests=len(requests))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """With a policy and a reward model that are names only."""
    lake = Lake(root=str(tmp_path))
    for name in ("policy", "reward_model"):
        folder = lake.artefact_path(name)
        folder.mkdir(parents=True)
        model = {"name": f"the-{name}", "revision": "1", "path": None}
        (folder / "manifest.json").write_text(json.dumps({"model": model, "inputs": "", "method": "none", "steps": []}))
    return lake


def changed(**rewrites: Any) -> Profile:
    profile = profiles.load("sample")
    return profile.model_copy(update={"rewrites": profile.rewrites.model_copy(update=rewrites)})


@pytest.mark.parametrize(
    ("player", "asked"),
    [
        ("policy", ("the-policy", 0.6)),
        ({"hub": f"big@{'1' * 40}"}, ("big", 0.6)),
        ({"hub": f"big@{'1' * 40}", "sampling": {"temperature": 0.1}}, ("big", 0.1)),
    ],
)
def test_the_policy_rewrites_unless_the_profile_names_a_rewriter(lake: Lake, player: Any, asked: tuple[str, float]) -> None:
    workers, profile = FakeWorkers(), playing(changed(), rewriter=player)
    calls = Calls(CONTEXT, workers, Settings(profile), lake)
    made = rewriter(calls, profile)
    assert made.form == "dialogue"
    row = {"strategy": "feedback", "prompt": [{"role": "user", "content": "q"}], "original": "r", "feedback": "f", "persona": ""}
    assert [each.text for each in made.write([row])] == ["new"]
    assert workers.asked == [asked]
    assert calls.metadata()["calls/requests"] == 1


@pytest.mark.parametrize(("margin", "scored"), [(None, 0), (4.0, 2)])
def test_the_asset_asks_the_reward_model_only_where_a_filter_looks_at_rewards(lake: Lake, margin: float | None, scored: int) -> None:
    filters = changed().rewrites.filters.model_copy(update={"min_reward_margin": margin})
    said = {
        "strategy": "feedback",
        "month": "2023-04",
        "prompt": [{"role": "user", "content": "q"}],
        "original": "long text",
        "feedback": "Shorter.",
        "persona": "",
    }
    rewritten = table(REWRITES, [said | {"rewrite_id": "a", "rewrite": "short"}, said | {"rewrite_id": "b", "rewrite": "long text"}])
    asked_at = datetime(2023, 4, 1, tzinfo=UTC)
    workers = FakeWorkers()
    frames = {
        "rewrites": rewritten.lazy(),
        "turns": table(TURNS, [{"turn_id": f"t{number}", "asked_at": asked_at} for number in range(9)]).lazy(),
        "feedback_labels": LABELS.lazy(),
        "users": USERS_FRAME.lazy(),
    }
    result = preferences.rewrite_pairs.body(CONTEXT, Settings(changed(filters=filters)), lake, workers, **frames)
    assert len(workers.scored) == scored
    # "short" has a reward of 5 and "long text" of 9: its margin is -4.
    assert result.value["drop_reasons"].to_list() == [[] if margin is None else ["reward_margin_too_small"], ["identical_sides"]]
    assert result.metadata["kept_pairs"] == (1 if margin is None else 0)
    assert "data:image/png" in result.metadata["waterfall"].md_str
    assert "identical_sides" in result.metadata["drop_reasons"].md_str
