"""The ceiling beside a score: the chance that a policy meets everything that heeds what is known and guesses the rest."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.tables import EVAL_PROMPTS, RESPONSES, SCORES
from rlhi_dagster.cli import score_table
from rlhi_dagster.evaluation import Metric, headline
from rlhi_dagster.evaluation.ceiling import ceiling
from rlhi_dagster.evaluation.judges import judge_pairs
from rlhi_dagster.evaluation.scores import scores
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.roles import judge
from rlhi_dagster.simulation.town import style, truth
from rlhi_dagster.simulation.village import truth as village
from rlhi_dagster.training.recipes import BASE
from tests.built import playing

SHORT, BULLETS, FORMAL, SPANISH = (
    "- Prefers short answers.",
    "- Prefers bullet points.",
    "- Prefers a formal tone.",
    "- Prefers answers in Spanish.",
)
WANTED = {Aspect.LENGTH: "short", Aspect.FORMAT: "bullets", Aspect.TONE: "formal", Aspect.LANGUAGE: "spanish"}
CHOICES = {Aspect(aspect): values for aspect, values in style.VALUES.items()}
ASKED_AT = datetime(2023, 5, 1, tzinfo=UTC)


def items(*rows: tuple[str, str, str], benchmark: str = "user_eval", turn: int = 1) -> pl.DataFrame:
    """(user, persona, request) as ``EVAL_PROMPTS``."""
    found = [
        dict.fromkeys(EVAL_PROMPTS.columns)
        | {"prompt_id": f"{benchmark}:{n}", "benchmark": benchmark, "user_id": user, "turn": turn, "asked_at": ASKED_AT}
        | {"prompt": [{"role": "user", "content": request}], "persona": persona, "persona_line_ids": []}
        for n, (user, persona, request) in enumerate(rows)
    ]
    return EVAL_PROMPTS.conform(pl.DataFrame(found, schema=EVAL_PROMPTS.schema, orient="row"))


def chances(*rows: tuple[str, str]) -> list[float]:
    """The chance of each (persona, request) alone."""
    found = [ceiling(items(("u", *row)), {"user_eval:0": WANTED}, CHOICES) for row in rows]
    return [each["value"][0] for each in found]


def test_a_known_preference_is_met_an_unknown_one_half_the_time_and_a_false_line_never() -> None:
    all_known = "\n".join((SHORT, BULLETS, FORMAL, SPANISH))
    assert chances((all_known, "Tulips?"), (f"{SHORT}\n{FORMAL}", "Tulips?"), ("", "Tulips?")) == [1, 1 / 4, 1 / 16]
    assert chances((f"{SHORT}\n- Prefers a friendly tone.", "Tulips?")) == [0]
    assert chances((f"{SHORT}\n{FORMAL}\n{BULLETS}", "Tulips? Answer in Spanish.")) == [1], "the request says the rest"
    assert chances((f"- Prefers long, detailed answers.\n{FORMAL}\n{BULLETS}\n{SPANISH}", "Tulips? Keep it short.")) == [1]


def test_the_row_is_a_mean_over_requests_with_an_interval_over_users() -> None:
    """Five users, of whom four requests are worth 1, 1/4, 1/4 and 1/16, and two of the fifth user 1/4 each: 2.0625 of 6."""
    all_known = "\n".join((SHORT, BULLETS, FORMAL, SPANISH))
    two = f"{SHORT}\n{FORMAL}"
    asked = items(("a", all_known, "?"), ("b", two, "?"), ("c", two, "?"), ("d", "", "?"), ("e", two, "?"), ("e", two, "?"))
    later = items(("a", "", "?"), benchmark="user_eval_follow_ups", turn=2)
    (row,) = ceiling(pl.concat([asked, later]), dict.fromkeys(asked["prompt_id"], WANTED), CHOICES).to_dicts()
    assert (row["benchmark"], row["metric"], row["n"], row["users"]) == ("user_eval", "all_preferences_met_ceiling", 6, 5)
    assert row["value"] == pytest.approx(2.0625 / 6)
    assert 0 < row["ci_low"] < row["value"] < row["ci_high"] < 1
    assert row["remark"] is None


def test_lines_in_other_words_tell_nothing_and_are_counted() -> None:
    asked = items(*((user, f"{SHORT}\n- Grows tulips.\n  said: tulips", "?") for user in "abcdef"))
    (row,) = ceiling(asked, dict.fromkeys(asked["prompt_id"], WANTED), CHOICES).to_dicts()
    assert row["value"] == 1 / 8
    assert row["remark"] == "6 of 12 persona lines name no aspect of an answer and count as saying nothing"


def answered(asked: pl.DataFrame, replies: dict[str, str]) -> pl.DataFrame:
    """``RESPONSES`` of recipes that each say one thing to everything."""
    answers = [
        dict.fromkeys(RESPONSES.columns) | {"response_id": f"{name}/{prompt_id}", "recipe": name, "prompt_id": prompt_id, "reply": reply}
        for name, reply in replies.items()
        for prompt_id in asked["prompt_id"]
    ]
    return RESPONSES.conform(pl.DataFrame(answers, schema=RESPONSES.schema, orient="row").with_columns(benchmark=pl.lit("user_eval")))


def verdicts(profile: profiles.Profile, asked: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    """``JUDGEMENTS`` against the base by the profile's judge."""
    (knowing,) = judge.judges(None, profile, asked)  # type: ignore[arg-type]
    base = responses.filter(recipe=BASE)
    names = responses["recipe"].unique().sort()
    return pl.concat(judge_pairs(asked, responses.filter(recipe=name), base, knowing) for name in names)


def test_the_town_has_a_ceiling_on_the_requests_that_its_judge_measured() -> None:
    """Two users whose four preferences are all known, and two of whom nothing is: (1 + 1 + 1/16 + 1/16) / 4."""
    profile = profiles.load("sample")
    known = truth.preferences(profiles.project_path(str(profile.truth)) / "preferences.parquet", profiles.salt(profile))
    lines = {("length", "short"): SHORT, ("length", "long"): "- Prefers long, detailed answers.", ("format", "bullets"): BULLETS}
    lines |= {("format", "prose"): "- Prefers plain paragraphs without lists.", ("tone", "formal"): FORMAL}
    lines |= {("tone", "friendly"): "- Prefers a friendly tone.", ("language", "spanish"): SPANISH}
    lines |= {("language", "english"): "- Prefers answers in English."}
    first, second, third, fourth = sorted(known)[:4]
    personas = {user: "\n".join(lines[aspect, known[user].value(aspect)] for aspect in style.ASPECTS) for user in (first, second)}
    asked = items(*((user, personas.get(user, ""), "Tell me about tulips.") for user in (first, second, third, fourth)))
    responses = answered(asked, {BASE: "x", "dpo_rewards": "x"})
    judged = verdicts(profile, asked, responses)
    found = pl.concat([scores(judged, responses, judged.filter(recipe=BASE)), judge.ceilings(profile, asked, judged)])
    (row,) = found.filter(metric=Metric.ALL_PREFERENCES_MET_CEILING.value).to_dicts()
    assert (row["recipe"], row["judge"], row["n"]) == (BASE, "town", 4)
    assert row["value"] == pytest.approx((2 + 2 / 16) / 4)
    assert SCORES.schema == found.schema
    assert set(headline.ranked(found)["metric"]) == {Metric.ALL_PREFERENCES_MET.value}, "no recipe is ranked by it"
    (line,) = (line for line in score_table.board(found, profile.arms) if line.startswith("ceiling"))
    assert line.split()[1] == "0.531"


def test_the_village_has_one_and_a_judge_that_is_a_model_has_none() -> None:
    profile = profiles.load("village")
    known = village.preferences(profiles.project_path(str(profile.truth)) / "preferences.parquet", profiles.salt(profile))
    user = min(known)
    wanted = village.preference_at(known[user], ASKED_AT)
    asked = items((user, "", "How do I bake bread?"))
    judged = verdicts(profile, asked, answered(asked, {BASE: "x"}))
    (row,) = judge.ceilings(profile, asked, judged).to_dicts()
    of_aspect = {Aspect.LENGTH: 2, Aspect.FORMAT: 3, Aspect.EXAMPLES: 2, Aspect.EXCLAMATION: 2, Aspect.CLOSING: 2, Aspect.OPENING: 1}
    expected = 1.0
    for aspect in wanted:
        expected /= of_aspect[aspect]
    assert row["value"] == pytest.approx(expected)
    assert judge.ceilings(profile, asked, judged.with_columns(preferences_met=None)).is_empty(), "the judge measured nothing"
    modelled = playing(profile, judge={"hub": f"a/b@{'1' * 40}"})
    assert judge.ceilings(modelled, asked, judged).is_empty()
