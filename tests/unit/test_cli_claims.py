"""``rlhi compare`` and the end of ``rlhi plan``: what is found, what could have been, and what a claim needs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import EVAL_PROMPTS, JUDGEMENTS, Table
from rlhi_dagster.cli import claims, compare_command
from rlhi_dagster.evaluation.power import ASSUMED, detectable_with, users_needed
from rlhi_dagster.profiles import Profile

RATES = {"base": 0.3, "dpo_rewards": 0.6, "dpo_rewards_user_agnostic": 0.3}
USERS, EACH = 30, 4


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    return profiles.load("sample").model_copy(update={"project_recipes": None})


def write(profile: Profile, name: str, table: Table, rows: list[dict], partitions: list[str] | None = None) -> None:
    frame = pl.DataFrame([dict.fromkeys(table.columns) | row for row in rows], schema=table.schema, orient="row")
    Lake(root=str(profile.root / "lake")).write(name, table.conform(frame), partitions)


def evaluated(profile: Profile) -> None:
    prompts = [{"prompt_id": f"p{i}", "benchmark": "user_eval", "user_id": f"u{i // EACH}"} for i in range(USERS * EACH)]
    write(profile, "eval_prompts", EVAL_PROMPTS, prompts)


def judged(profile: Profile, judges: tuple[str, ...] = ("town",)) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"judgement_id": f"{recipe}{i}{judge}{order}", "recipe": recipe, "opponent": "base", "prompt_id": f"p{i}", "benchmark": "user_eval"}
        | {"user_id": f"u{i // EACH}", "judge": judge, "order": order, "verdict": "tie", "preferences_met": met, "is_malformed": False}
        for recipe, rate in RATES.items()
        for i in range(USERS * EACH)
        for met in [float(rng.random() < rate)]
        for judge in judges
        for order in ("recipe_first", "opponent_first")
    ]
    write(profile, "judgements", JUDGEMENTS, rows, sorted(RATES))


def compared(monkeypatch: pytest.MonkeyPatch, profile: Profile, left: str, right: str, judge: str | None = None) -> dict[str, str]:
    monkeypatch.setattr(profiles, "current", lambda: profile)
    given = argparse.Namespace(left=left, right=right, benchmark="user_eval", metric=None, judge=judge, json=False)
    title, *lines = compare_command.run(given).splitlines()
    return {"title": title} | {line[:12].strip(): line[12:] for line in lines}


def test_a_comparison_says_what_was_found_and_what_could_have_been(monkeypatch: pytest.MonkeyPatch, sample: Profile) -> None:
    judged(sample)
    found = compared(monkeypatch, sample, "dpo_rewards", "base")
    assert found["title"] == "dpo_rewards minus base: all_preferences_met on user_eval, judge town"
    assert found["items"] == "120 of 30 users"
    assert found["difference"].startswith("+0.")
    assert found["p"].endswith("after Holm's correction over the claims of family rewards")
    assert found["verdict"] == "told apart"
    turned = compared(monkeypatch, sample, "base", "dpo_rewards")
    assert (turned["difference"][0], turned["p"]) == ("-", found["p"]), "the claim is the same from either side"
    copies = compared(monkeypatch, sample, "dpo_rewards_user_agnostic", "base")
    assert copies["p"].endswith("no recipe claims this, so nothing is corrected")
    assert copies["verdict"].startswith("too few items: a difference under 0.")


def test_what_cannot_be_compared_is_said(monkeypatch: pytest.MonkeyPatch, sample: Profile) -> None:
    judged(sample, ("hers", "town"))
    with pytest.raises(ValueError, match="share the judges hers, town on user_eval: name one"):
        compared(monkeypatch, sample, "dpo_rewards", "base")
    assert compared(monkeypatch, sample, "dpo_rewards", "base", "hers")["title"].endswith("judge hers")
    with pytest.raises(ValueError, match="no judgements of recipe kto_thumbs on user_eval; there are base, dpo_rewards"):
        compared(monkeypatch, sample, "kto_thumbs", "base", "hers")


def test_a_plan_says_what_the_items_find_and_what_a_claim_needs_before_anything_is_made(sample: Profile) -> None:
    needed = users_needed(0.05, sample.evaluation.requests_per_user, ASSUMED)
    assert f"a difference of 0.05 needs {needed:,} users of 6 requests, as one of 7 claims " in claims.text(sample, 0.05)
    evaluated(sample)
    head, columns, line = claims.text(sample, 0.05).splitlines()
    assert "of a family of 7 claims" in head
    assert "users for 0.05" in columns
    assert line.split()[:4] == ["user_eval", "120", "30", f"{detectable_with([EACH] * USERS, ASSUMED):.3f}"]
    assert line.endswith("variance 0.50, within users 0.10 alike, assumed")
    judged(sample)
    assert claims.text(sample, 0.05).endswith("measured on all_preferences_met")
    with pytest.raises(ValueError, match="above 0, not -1"):
        claims.text(sample, -1)
